# syntax=docker/dockerfile:1
FROM python:3.11-slim-bookworm AS build
WORKDIR /build
RUN python -m venv /opt/venv
ENV PATH="/opt/venv/bin:$PATH"
COPY requirements.txt .
RUN pip install --no-cache-dir --disable-pip-version-check -r requirements.txt \
    && pip uninstall --yes --quiet pip setuptools

FROM python:3.11-slim-bookworm
ENV PATH="/opt/venv/bin:$PATH" \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
RUN groupadd --gid 10001 metasync \
    && useradd --uid 10001 --gid metasync --no-create-home --shell /usr/sbin/nologin metasync \
    && install --directory --owner=metasync --group=metasync --mode=0700 /data
COPY --from=build /opt/venv /opt/venv
WORKDIR /app
COPY config.py env.json main_app.py ./
COPY api ./api
COPY engine ./engine
COPY llm_optimizer ./llm_optimizer
COPY llm_workers ./llm_workers
COPY utilities ./utilities
# A checkout under a strict umask would leave files that only root can read.
RUN chmod -R a+rX . && python -m compileall -q .
# By number: Kubernetes' runAsNonRoot cannot tell from a name.
USER 10001:10001
VOLUME /data
EXPOSE 8001
STOPSIGNAL SIGTERM
# Not urllib, which would ask a proxy from the environment about 127.0.0.1.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('PORT') or 8001), timeout=2); c.request('GET', '/health/live'); sys.exit(c.getresponse().status != 200)"]
CMD ["python", "main_app.py"]
