# An image whose command is vit_jax, for CPUs, NVIDIA GPUs or TPUs; docs/distributed.md uses it.
#
#   docker build --build-arg ACCELERATOR=tpu --tag vit_jax:tpu .
#   docker run vit_jax:cpu train --config=configs/quickstart.py --workdir=runs/digits
ARG PYTHON=3.12
FROM python:${PYTHON}-slim

# cpu, cuda (the wheels bring CUDA; the host has the driver) or tpu.
ARG ACCELERATOR=cpu

# Process 1 of a container gets no signal that it does not handle, and a start is killed, not ended,
# if it has not come to its training. Under tini, Python is an ordinary process.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/*

# The dependencies alone: this layer stays when the code changes. setup.py asks for a version, a
# README and the directory of configs.
WORKDIR /opt/vit_jax
COPY setup.py constraints.txt ./
COPY vit_jax/version.py vit_jax/
RUN case "$ACCELERATOR" in \
        cpu) extras=gcs,kubernetes,plots ;; \
        cuda | tpu) extras=gcs,kubernetes,plots,$ACCELERATOR ;; \
        *) echo "ACCELERATOR=$ACCELERATOR: say cpu, cuda or tpu" >&2; exit 2 ;; \
    esac \
    && mkdir configs && touch README.md \
    && pip install --no-cache-dir --constraint constraints.txt ".[$extras]" \
    && pip uninstall --yes vit_jax

COPY README.md ./
COPY configs configs
COPY vit_jax vit_jax
RUN pip install --no-cache-dir --no-deps . && rm -rf build ./*.egg-info

# A home that can be written, for runs without --workdir in a bucket, caches and downloads.
RUN useradd --create-home --uid 1000 vit
# By number, so that Kubernetes can see that it is not root.
USER 1000
WORKDIR /home/vit

ENTRYPOINT ["tini", "--", "python", "-m", "vit_jax"]
CMD ["--help"]
