"""The paper's looks inside a model, on any weights and images: `analyze`."""
