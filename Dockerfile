# cwic in containers. docs/deploy-jetson.md shows how to build and run each target:
#
#   runtime-cpu       any machine: onnxruntime on the CPU (the default target)
#   runtime-tensorrt  x86-64 with an NVIDIA GPU: TensorRT from its wheels
#   runtime-jetson    Jetson: the TensorRT of the JetPack image; build it on the device
#   export            training, export, validation: with torch
#
# Every base is an argument, so that a mirror or a digest can take its place.
ARG PYTHON_BASE=python:3.12-slim-bookworm
ARG CUDA_BASE=nvcr.io/nvidia/cuda:13.0.0-base-ubuntu24.04
# JetPack 6. There is no such image for JetPack 7; see docs/deploy-jetson.md.
ARG JETSON_BASE=nvcr.io/nvidia/l4t-jetpack:r36.4.0
ARG CWIC_VERSION=0.1.0

FROM scratch AS source
COPY pyproject.toml README.md LICENSE /
COPY runtime /runtime
COPY export /export
COPY training /training

# In each build stage: the coder in C is optional for pip, so its import is tried afterwards.

FROM ${PYTHON_BASE} AS python-compiler
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY --from=source / ./

FROM python-compiler AS build-cpu
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
RUN python3 -m venv /opt/cwic \
 && /opt/cwic/bin/python -m pip install --no-cache-dir '.[cpu]' \
 && /opt/cwic/bin/python -c 'import cwic._rans'

FROM python-compiler AS build-export
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
RUN python3 -m venv /opt/cwic \
 && /opt/cwic/bin/python -m pip install --no-cache-dir '.[export]' \
 && /opt/cwic/bin/python -c 'import cwic._rans'

FROM ${CUDA_BASE} AS build-tensorrt
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc libc6-dev python3-dev python3-venv \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY --from=source / ./
RUN python3 -m venv /opt/cwic \
 && /opt/cwic/bin/python -m pip install --no-cache-dir '.[cpu,tensorrt]' \
 && /opt/cwic/bin/python -c 'import cwic._rans'

# cuda-python must be of the CUDA version of the driver: ~=12.0 for JetPack 6, ~=13.0 for 7.
# TensorRT is looked for and not imported: it needs libraries of the driver, which a build lacks.
FROM ${JETSON_BASE} AS build-jetson
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG CUDA_PYTHON=~=12.0
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc libc6-dev python3-dev python3-venv \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY --from=source / ./
RUN python3 -m venv --system-site-packages /opt/cwic \
 && /opt/cwic/bin/python -m pip install --no-cache-dir '.[cpu,tensorrt]' "cuda-python${CUDA_PYTHON}" \
 && /opt/cwic/bin/python -c 'import cwic._rans' \
 && /opt/cwic/bin/python -c 'import importlib.util as u; raise SystemExit(None if u.find_spec("tensorrt") else "the python3 of the base image has no TensorRT; choose another JETSON_BASE")'

FROM ${PYTHON_BASE} AS python-user
ARG CWIC_VERSION
LABEL org.opencontainers.image.version="${CWIC_VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/opt/cwic/bin:$PATH
RUN useradd --no-create-home --uid 10001 cwic
WORKDIR /data
USER 10001
HEALTHCHECK --interval=5m --timeout=2m --start-period=1m CMD ["cwic", "doctor"]
ENTRYPOINT ["cwic"]
CMD ["--help"]

FROM python-user AS export
LABEL org.opencontainers.image.title="cwic export" \
      org.opencontainers.image.description="Train, export and validate models of cwic"
# torch asks for a home and a user name, also where --user gives a number that nobody has.
ENV HOME=/tmp USER=cwic
COPY --from=build-export /opt/cwic /opt/cwic

FROM ${CUDA_BASE} AS runtime-tensorrt
ARG CWIC_VERSION
LABEL org.opencontainers.image.title="cwic" \
      org.opencontainers.image.description="Learned image codec, TensorRT on x86-64" \
      org.opencontainers.image.version="${CWIC_VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/opt/cwic/bin:$PATH
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --no-create-home --uid 10001 cwic
COPY --from=build-tensorrt /opt/cwic /opt/cwic
WORKDIR /data
USER 10001
HEALTHCHECK --interval=5m --timeout=2m --start-period=1m CMD ["cwic", "doctor"]
ENTRYPOINT ["cwic"]
CMD ["--help"]

FROM ${JETSON_BASE} AS runtime-jetson
ARG CWIC_VERSION
LABEL org.opencontainers.image.title="cwic" \
      org.opencontainers.image.description="Learned image codec, TensorRT on Jetson" \
      org.opencontainers.image.version="${CWIC_VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/opt/cwic/bin:$PATH
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --no-create-home --uid 10001 --groups video cwic
COPY --from=build-jetson /opt/cwic /opt/cwic
WORKDIR /data
USER 10001
HEALTHCHECK --interval=5m --timeout=2m --start-period=1m CMD ["cwic", "doctor"]
# NVIDIA's images bring an entry point that prints a banner; this takes its place.
ENTRYPOINT ["cwic"]
CMD ["--help"]

FROM python-user AS runtime-cpu
LABEL org.opencontainers.image.title="cwic" \
      org.opencontainers.image.description="Learned image codec, onnxruntime on the CPU"
COPY --from=build-cpu /opt/cwic /opt/cwic
