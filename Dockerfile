# Two images from one file: `web` (pages, beat, migrations) without torch, `worker` with it.
#   docker build --target worker --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .

FROM python:3.12-slim AS web
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN useradd --uid 10001 --create-home --home-dir /home/preferable preferable \
    && install -d -o preferable -g preferable /data
WORKDIR /build
# Packages first: they change less often than the project.
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" > web.txt \
    && pip install --constraint constraints.txt --requirement web.txt
COPY app app
COPY workers workers
COPY templates templates
COPY static static
COPY migrations migrations
RUN pip install --no-deps --constraint constraints.txt .
ENV PREFERABLE_HOME=/data HOST=0.0.0.0
USER preferable
WORKDIR /data
VOLUME /data
EXPOSE 8000
CMD ["python", "-m", "app.serve"]

FROM web AS worker
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
USER root
WORKDIR /build
RUN pip install --constraint constraints.txt --no-deps --extra-index-url "$TORCH_INDEX" torch==2.13.* \
    && pip install --constraint constraints.txt ".[worker]"
USER preferable
WORKDIR /data
ENV OMP_WAIT_POLICY=passive TOKENIZERS_PARALLELISM=false
CMD ["celery", "--app", "workers.celery_app:celery", "worker", "--queues", "cpu", "--pool", "prefork", "--concurrency", "1"]
