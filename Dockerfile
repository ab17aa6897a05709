# relevo, and what it needs, for `relevo serve`. No secret is in it: settings come from the environment it runs in.
FROM python:3.11-slim-bookworm AS build
WORKDIR /source
COPY requirements/run.txt requirements/build.txt requirements/
RUN python -m venv /opt/relevo \
    && /opt/relevo/bin/pip install --no-cache-dir --require-hashes -r requirements/run.txt \
    && pip install --no-cache-dir --require-hashes -r requirements/build.txt
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY relevo relevo
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheel . \
    && /opt/relevo/bin/pip install --no-cache-dir --no-deps --no-index /wheel/*.whl

FROM python:3.11-slim-bookworm
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/relevo relevo
COPY --from=build /opt/relevo /opt/relevo
ENV PATH=/opt/relevo/bin:$PATH
USER 10001
WORKDIR /var/lib/relevo
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8080/readyz', timeout=2)"]
ENTRYPOINT ["relevo"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8080"]
