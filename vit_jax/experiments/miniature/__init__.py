"""The paper in miniature: its claims, each tried with small models on data that fit the machine."""
