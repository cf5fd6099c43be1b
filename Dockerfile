# reembed from this checkout, with the versions of requirements.lock: docker build -t reembed .
# (manifests/schedules/Dockerfile installs a release instead. Both are used alike.)
# docker run --rm -v "$PWD:/srv/app" --user "$(id -u):$(id -g)" reembed plan m.yaml
FROM python:3.13-slim AS build
WORKDIR /src
RUN python -m venv --without-pip /opt/reembed
COPY requirements.lock ./
# The lock without its hashes, which pip asks of a checkout too, where there are none.
RUN grep -E '^[a-z0-9]' requirements.lock | sed 's/ *\\$//' > constraints.txt
COPY pyproject.toml README.md LICENSE ./
COPY reembed reembed
RUN pip --python /opt/reembed/bin/python install --no-cache-dir --no-compile --constraint constraints.txt '.[bulk,pgvector,notify,metrics,telemetry,static]'

FROM python:3.13-slim
LABEL org.opencontainers.image.title="reembed" org.opencontainers.image.licenses="Apache-2.0"
# A new volume takes the owner of the folder over which it is mounted; without the folder it belongs to root.
RUN useradd --uid 10001 --create-home reembed && install --directory --owner=reembed --group=reembed /srv/app /srv/app/.reembed
COPY --from=build /opt/reembed /opt/reembed
ENV PATH=/opt/reembed/bin:$PATH PYTHONDONTWRITEBYTECODE=1
USER 10001
WORKDIR /srv/app
ENTRYPOINT ["reembed"]
