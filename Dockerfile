# The images of The Eye: one each for the API, the worker and the operator, and one with everything for the tasks that
# look after a store (migrate, maintain, application). BASE is any image with python3 3.11 or newer, its venv and pip.
ARG BASE=python:3.13-slim

FROM ${BASE} AS base
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1

# The project's own wheel, without what it depends on.
FROM base AS wheel
WORKDIR /src
COPY requirements/build.txt requirements/
RUN python3 -m venv /build \
    && /build/bin/pip install --quiet --require-hashes --only-binary :all: -r requirements/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY services services
COPY operator operator
RUN /build/bin/pip wheel --quiet --no-deps --no-build-isolation --no-index --wheel-dir /wheel .

# What each image depends on, which changes less often than the project: a layer of its own. Without pip, for nothing is
# installed into an image afterwards.
FROM base AS environment
RUN python3 -m venv --without-pip /opt/python
ENV INSTALL="python3 -m pip --python /opt/python/bin/python install --quiet --compile --require-hashes --only-binary :all:"

FROM environment AS api-environment
COPY requirements/api.txt /
RUN $INSTALL -r /api.txt

FROM environment AS worker-environment
COPY requirements/worker.txt /
RUN $INSTALL -r /worker.txt

FROM environment AS operator-environment
COPY requirements/operator.txt /
RUN $INSTALL -r /operator.txt

FROM environment AS all-environment
COPY requirements/all.txt /
RUN $INSTALL -r /all.txt

# The project is the same in all of them; what an image lacks it cannot run.
FROM environment AS project
COPY --from=wheel /wheel /wheel
RUN python3 -m pip --python /opt/python/bin/python install --quiet --compile --no-deps --no-index --target /opt/the-eye \
    /wheel/*.whl

FROM base AS runtime
LABEL org.opencontainers.image.title="The Eye" \
      org.opencontainers.image.description="Accepts events durably, checks them against declared rules, stores them and shows them" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/opt/the-eye/bin:/opt/python/bin:$PATH PYTHONPATH=/opt/the-eye
# A number, so that Kubernetes can see that it is not root.
USER 65532:65532
ENTRYPOINT ["the-eye"]

FROM runtime AS api
COPY --from=api-environment /opt/python /opt/python
COPY --from=project /opt/the-eye /opt/the-eye
CMD ["api"]

FROM runtime AS worker
COPY --from=worker-environment /opt/python /opt/python
COPY --from=project /opt/the-eye /opt/the-eye
CMD ["worker"]

FROM runtime AS operator
COPY --from=operator-environment /opt/python /opt/python
COPY --from=project /opt/the-eye /opt/the-eye
CMD ["operator"]

FROM runtime AS all
COPY --from=all-environment /opt/python /opt/python
COPY --from=project /opt/the-eye /opt/the-eye
CMD ["--help"]
