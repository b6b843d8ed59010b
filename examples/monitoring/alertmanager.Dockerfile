# Alertmanager for the demo and the tests. The context is the folder that `python3 -m cluster monitoring` prints second.
ARG BASE=docker.io/library/debian:bookworm-slim
FROM ${BASE}
COPY alertmanager amtool /usr/bin/
COPY share /usr/share/prometheus/alertmanager
USER 65532:65532
EXPOSE 9093
ENTRYPOINT ["/usr/bin/alertmanager"]
