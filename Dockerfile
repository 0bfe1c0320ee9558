# The images of The Eye: one each for the API, the worker and the operator, and one with everything for the tasks that
# look after a store (migrate, maintain, application). BASE is any image with python3 3.11 or newer and its venv.
ARG BASE=python:3.13-slim

# All packages of all images, and those that build the project: the one step that reaches a package index. Where pip has
# to be told how, that comes as the secrets pip.conf and ca-certificates, which stay out of every layer.
FROM ${BASE} AS packages
ENV PYTHONDONTWRITEBYTECODE=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN python3 -m venv /pip
COPY requirements/build.txt requirements/all.txt /requirements/
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    --mount=type=secret,id=ca-certificates,target=/run/secrets/ca-certificates \
    /pip/bin/pip download --quiet --require-hashes --only-binary :all: --dest /packages \
    -r /requirements/build.txt -r /requirements/all.txt

FROM packages AS build
ENV PIP_NO_INDEX=1 PIP_FIND_LINKS=/packages
RUN python3 -m venv /build && /build/bin/pip install --quiet --require-hashes -r /requirements/build.txt

# The project's own wheel, without what it depends on.
FROM build AS wheel
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY services services
COPY operator operator
RUN /build/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /wheel .

# What each image depends on, which changes less often than the project: a layer of its own. Without pip, for nothing is
# installed into an image afterwards.
FROM build AS environment
RUN python3 -m venv --without-pip /opt/python
ENV INSTALL="/build/bin/pip --python /opt/python/bin/python install --quiet --compile"

FROM environment AS api-environment
COPY requirements/api.txt /requirements/
RUN $INSTALL --require-hashes -r /requirements/api.txt

FROM environment AS worker-environment
COPY requirements/worker.txt /requirements/
RUN $INSTALL --require-hashes -r /requirements/worker.txt

FROM environment AS operator-environment
COPY requirements/operator.txt /requirements/
RUN $INSTALL --require-hashes -r /requirements/operator.txt

FROM environment AS all-environment
RUN $INSTALL --require-hashes -r /requirements/all.txt

# The project is the same in all of them; what an image lacks it cannot run.
FROM environment AS project
COPY --from=wheel /wheel /wheel
RUN $INSTALL --no-deps --target /opt/the-eye /wheel/*.whl

FROM ${BASE} AS runtime
# Whatever the base can install packages with goes. Python's own images come without bytecode, which no process could
# write later.
RUN find / -xdev -depth \( -name ensurepip -o -name python-wheels -o -name pip -o -name 'pip[0-9-]*' -o -name wheel \
        -o -name 'wheel-*' -o -name setuptools -o -name 'setuptools-*' -o -name pkg_resources \) -exec rm -rf {} + \
    && python3 -m compileall -q -x /lib2to3/ "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PATH=/opt/the-eye/bin:/opt/python/bin:$PATH PYTHONPATH=/opt/the-eye
ARG BASE
LABEL org.opencontainers.image.base.name="$BASE" \
      org.opencontainers.image.licenses="Apache-2.0"
# A number, so that Kubernetes can see that it is not root.
USER 65532:65532
ENTRYPOINT ["the-eye"]

# VERSION and REVISION come last: a new one changes no layer.
FROM runtime AS api
COPY --from=api-environment /opt/python /opt/python
COPY --from=project /opt/the-eye /opt/the-eye
CMD ["api"]
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="The Eye: API" \
      org.opencontainers.image.description="Accepts events durably and gives them back" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"

FROM runtime AS worker
COPY --from=worker-environment /opt/python /opt/python
COPY --from=project /opt/the-eye /opt/the-eye
CMD ["worker"]
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="The Eye: worker" \
      org.opencontainers.image.description="Checks events against declared rules and stores them" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"

FROM runtime AS operator
COPY --from=operator-environment /opt/python /opt/python
COPY --from=project /opt/the-eye /opt/the-eye
CMD ["operator"]
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="The Eye: operator" \
      org.opencontainers.image.description="Gives the ValidatorRules of a Kubernetes cluster to the workers" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"

FROM runtime AS all
COPY --from=all-environment /opt/python /opt/python
COPY --from=project /opt/the-eye /opt/the-eye
CMD ["--help"]
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="The Eye" \
      org.opencontainers.image.description="Every command of The Eye, those that look after a store among them" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
