# Runs the demo on the CPU:
#   docker build -t shardwave .
#   docker run --rm --shm-size=2g -v "$PWD/demo:/work/demo" shardwave
FROM python:3.11-slim
RUN apt-get update && apt-get install --yes --no-install-recommends make git gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /work
COPY . .
RUN make setup
CMD ["make", "demo"]
