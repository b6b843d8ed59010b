# Prometheus for the demo and the tests. The context is the folder that `python3 -m cluster monitoring` prints first.
ARG BASE=docker.io/library/debian:bookworm-slim
FROM ${BASE}
COPY prometheus promtool /usr/bin/
USER 65532:65532
EXPOSE 9090
ENTRYPOINT ["/usr/bin/prometheus"]
