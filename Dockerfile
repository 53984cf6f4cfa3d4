# Search an index over HTTP, on the CPU (x86-64).
#
#   docker build -t eaglenet-mm .
#   docker run -p 7860:7860 -v FOLDER:/data eaglenet-mm
#
# FOLDER holds the index, videos.index, and the checkpoint it names. Videos are
# looked for under the paths that they had when the index was made, so mount
# them there, or make the index in a container as well:
#
#   docker run -v FOLDER:/data -v VIDEOS:/videos:ro eaglenet-mm \
#       index /videos --config mean_pooling_msrvtt --out /data/videos.index
#
# The process has user and group 1000; add --user for a folder of another's.

FROM python:3.11-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/eaglenet-mm
ENV PATH=/opt/eaglenet-mm/bin:$PATH
WORKDIR /source
COPY constraints.txt ./
# the versions that are pinned, but torch's builds without CUDA; apart, because
# they are large and change seldom
RUN pip install -c constraints.txt torch torchvision \
    --extra-index-url https://download.pytorch.org/whl/cpu
COPY . ./
RUN pip install -c constraints.txt ".[lite,serve,huggingface]"

FROM python:3.11-slim-bookworm
# what OpenCV's wheel links to
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --create-home eaglenet \
    && install -d -o eaglenet -g eaglenet /data
COPY --from=build /opt/eaglenet-mm /opt/eaglenet-mm
ENV PATH=/opt/eaglenet-mm/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HF_HOME=/data/huggingface
USER 1000
WORKDIR /data
VOLUME /data
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=10s --start-period=120s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:7860/healthz', timeout=5)"]
ENTRYPOINT ["eaglenet-mm"]
CMD ["serve", "/data/videos.index", "--host", "0.0.0.0"]
