# The image of the service. Its packages are pinned by hash in requirements-service.lock; its base is pinned where
# PYTHON_IMAGE names a digest. The same inputs give the same image:
#
#   docker buildx build --build-arg SOURCE_DATE_EPOCH=0 --output type=image,rewrite-timestamp=true .
#   podman build --timestamp 0 .      (or buildah)
#
# A pip.conf for packages of another index is given as a secret, and ends in no layer:
#
#   docker build --secret id=pip.conf,src=$HOME/.config/pip/pip.conf .

ARG PYTHON_IMAGE=docker.io/library/python:3.13-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_NO_INPUT=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONHASHSEED=0
WORKDIR /src

RUN python3 -m venv --without-pip /opt/imgbuilder
COPY requirements-service.lock .
RUN --mount=type=secret,id=pip.conf \
    PIP_CONFIG_FILE=/run/secrets/pip.conf python3 -m pip --python /opt/imgbuilder/bin/python install \
        --quiet --no-compile --no-deps --only-binary :all: --require-hashes -r requirements-service.lock

COPY imgbuilder imgbuilder
ARG SOURCE_DATE_EPOCH=0
# Of what botocore knows of AWS, the services that give tokens are kept. Bytecode is tied to no time of a file, so that
# it counts on a file system that can't be written, and is the same in each build.
RUN set -eu; \
    packages=$(/opt/imgbuilder/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'); \
    find "$packages/botocore/data" -mindepth 1 -maxdepth 1 -type d \
        ! -name ecr ! -name ecr-public ! -name sts -exec rm -r {} +; \
    cp -r imgbuilder "$packages/"; \
    printf '%s\n' '#!/opt/imgbuilder/bin/python' 'from imgbuilder.cli.main import main' 'main()' \
        > /opt/imgbuilder/bin/imgbuilder; \
    chmod 755 /opt/imgbuilder/bin/imgbuilder; \
    /opt/imgbuilder/bin/python -m compileall -q --invalidation-mode unchecked-hash "$packages"; \
    find /opt/imgbuilder -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="imgbuilder" \
      org.opencontainers.image.description="Orchestrates container image builds for cloud development environments" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY LICENSE /usr/share/doc/imgbuilder/
COPY --from=build /opt/imgbuilder /opt/imgbuilder
ENV PATH=/opt/imgbuilder/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# Base images come without the bytecode of Python's own modules. Without that of those that the service imports,
# each start would take half as long again.
RUN PYTHONHASHSEED=0 python3 -c 'import imgbuilder.cli.service, sys; print(*sorted(name for name in (getattr( \
        module, "__file__", None) or "" for module in list(sys.modules.values())) \
        if name.startswith(sys.base_prefix) and name.endswith(".py")), sep="\n")' \
    | PYTHONHASHSEED=0 python3 -m compileall -q --invalidation-mode unchecked-hash -i -
USER 33333:33333
WORKDIR /tmp
EXPOSE 8080 9501
STOPSIGNAL SIGTERM
ENTRYPOINT ["/opt/imgbuilder/bin/imgbuilder"]
CMD ["run", "--config", "/config/image-builder.json"]
