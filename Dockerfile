# smtpmaild as a container: no root, a read-only root file system, mail in volumes.
#
#   docker build -t smtpmaild .
#   docker run --read-only -p 25:2525 -e MAIL_HOST=mx.example.com -e MAIL_DOMAIN=example.com \
#              -v mail:/var/spool/smtpmaild -v state:/var/lib/smtpmaild smtpmaild
#
# That is config/examples/container.yaml; for a file of your own add -v ./smtp.yaml:/etc/smtpmaild/smtp.yaml:ro.
# Certificates come in the same way, -v ./tls:/etc/smtpmaild/tls:ro, with keys that user 65532 can read; renewed files are
# noticed.
# A directory of the host that is mounted as a volume must be writable for user 65532.
# Built and started for real by tests/container.py.

ARG BASE=debian:bookworm-slim

FROM ${BASE} AS build
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends python3 python3-venv python3-dev gcc libc6-dev
WORKDIR /src
COPY pyproject.toml compiling.py README.md LICENSE ./
COPY smtpmaild smtpmaild
COPY docs/man docs/man
# Two environments: pip works from one of them and leaves nothing of itself in the other, which is what ships.
# The rooms that every message passes are compiled (docs/compiled.md); the compiler stays here.
ARG OPTIMIZE=3
RUN python3 -m venv /tmp/pip \
 && python3 -m venv --without-pip /opt/smtpmaild \
 && HATCH_BUILD_HOOK_ENABLE_CUSTOM=1 OPTIMIZE="$OPTIMIZE" /tmp/pip/bin/pip --python /opt/smtpmaild/bin/python install --no-cache-dir '.[all]' \
 && /opt/smtpmaild/bin/smtpmaild version | grep compiled

FROM ${BASE}
# Nothing of apt's and dpkg's own bookkeeping about the download stays; the daemon needs Python and no more.
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends python3 \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/log/* /usr/share/doc/* /usr/share/man/* \
 && groupadd --gid 65532 smtpmaild \
 && useradd --uid 65532 --gid 65532 --no-create-home --home-dir /var/lib/smtpmaild --shell /usr/sbin/nologin smtpmaild \
 && install -d -o 65532 -g 65532 -m 0750 /var/spool/smtpmaild /var/lib/smtpmaild
COPY --from=build /opt/smtpmaild /opt/smtpmaild
COPY config/examples/container.yaml /etc/smtpmaild/smtp.yaml

# Where a policy wants to see a whole large message, it waits in an unnamed file: on a volume, as /tmp may be read-only.
ENV PATH=/opt/smtpmaild/bin:/usr/local/bin:/usr/bin:/bin \
    LANG=C.UTF-8 \
    TMPDIR=/var/lib/smtpmaild

ARG VERSION=0.1.0
ARG REVISION=
ARG CREATED=
LABEL org.opencontainers.image.title="smtpmaild" \
      org.opencontainers.image.description="An SMTP daemon: every message it acknowledges is safely on disk" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"

USER 65532:65532
EXPOSE 2525
VOLUME ["/var/spool/smtpmaild", "/var/lib/smtpmaild"]
WORKDIR /var/lib/smtpmaild
# Sessions end at their next command, bodies in flight are finished: give it time (docker stop --time 30).
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s --retries=3 \
    CMD ["smtpmaild", "healthcheck", "--config", "/etc/smtpmaild/smtp.yaml"]
ENTRYPOINT ["smtpmaild"]
CMD ["--config", "/etc/smtpmaild/smtp.yaml"]
