# One file, one image per binary: `--target node`, `runner` or `direct`. Dependencies are a layer of their own, which only a
# change of a Cargo.toml or of Cargo.lock rebuilds. `prebuilt` takes binaries that were built outside (see
# docker-compose.local.yml).
ARG RUST_IMAGE=rust:1.90-slim-bookworm
ARG RUNTIME_IMAGE=debian:bookworm-slim

FROM ${RUNTIME_IMAGE} AS runtime
# curl is for health checks.
RUN command -v curl >/dev/null || { apt-get update && apt-get install -y --no-install-recommends curl && rm -rf /var/lib/apt/lists/*; }
RUN useradd --uid 10001 --no-create-home mesh && mkdir /results && chown mesh /results
USER mesh
WORKDIR /results
ENV RESULTS=/results
# The binaries end on SIGTERM by themselves, and start nothing that would need an init.
STOPSIGNAL SIGTERM
ARG VERSION=unknown
ARG REVISION=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="Mesh Bench" \
    org.opencontainers.image.description="A benchmark for a peer-to-peer in-memory cache mesh over QUIC: node, runner and direct-runner" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.source="$SOURCE" \
    org.opencontainers.image.version="$VERSION" \
    org.opencontainers.image.revision="$REVISION"

# All three binaries from target/prebuilt, in one image. Builders without BuildKit make every stage above the one they are
# asked for: hence this one stands above those that compile, and does not mind if there is nothing to copy.
FROM runtime AS prebuilt
COPY LICENSE target/prebuilt*/* /opt/mesh-bench/
ENV PATH=/opt/mesh-bench:$PATH

FROM ${RUST_IMAGE} AS manifests
WORKDIR /src
COPY . .
# Every source becomes empty; what is left is what dependencies are decided by.
RUN find . -name '*.rs' -not -name build.rs -exec sh -c ': > "$1"; case "$1" in */main.rs) echo "fn main() { }" > "$1";; esac' _ {} \; \
    && rm -rf target tests/black_box tests/tidy

FROM ${RUST_IMAGE} AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev make && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY --from=manifests /src .
RUN cargo build --locked --release -p node -p runner -p direct-runner
COPY . .
ARG REVISION
# Cargo goes by times: whatever was empty a moment ago must look new. Without git, `--version` names the commit that it is told.
RUN find . -name '*.rs' -exec touch {} + \
    && MESH_BENCH_COMMIT=$(printf %.12s "${REVISION#unknown}") cargo build --locked --release -p node -p runner -p direct-runner \
    && mkdir /out && cp target/release/node target/release/runner target/release/direct-runner /out/ && strip /out/*

FROM runtime AS node
LABEL org.opencontainers.image.title="Mesh Bench node" org.opencontainers.image.description="A node of a peer-to-peer in-memory cache mesh over QUIC"
COPY --from=build /out/node /usr/local/bin/node
ENTRYPOINT ["node"]

FROM runtime AS runner
LABEL org.opencontainers.image.title="Mesh Bench runner" org.opencontainers.image.description="Loads a cache mesh, breaks it, and says what clients saw"
COPY --from=build /out/runner /usr/local/bin/runner
ENTRYPOINT ["runner"]

FROM runtime AS direct
LABEL org.opencontainers.image.title="Mesh Bench direct-runner" org.opencontainers.image.description="Nodes of a cache mesh and their load in one process"
COPY --from=build /out/direct-runner /usr/local/bin/direct-runner
ENTRYPOINT ["direct-runner"]
