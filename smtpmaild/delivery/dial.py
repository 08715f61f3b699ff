"""Makes a connection on which mail can be sent at once: connected, greeted, encrypted and signed in as the options say.

TLS by RFC 3207 and RFC 8314: `may` is opportunistic (RFC 7435): whatever fails of it, the mail goes on in clear text,
as it would have without; `required` takes any certificate and `verify` only a valid one, and neither ever sends mail
in clear text. Whatever fails is a NotConnectedError with the reason: temporary if it is ours, the server's own reply
if not; a password that is not taken is temporary, since it is the operator's mistake and not the sender's.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from dataclasses import dataclass
from pathlib import Path

from smtpmaild.delivery.authorities import verifying_context
from smtpmaild.delivery.channel import Channel, limits
from smtpmaild.delivery.endpoint import Endpoint
from smtpmaild.delivery.options import SessionOptions
from smtpmaild.delivery.sasl import MECHANISMS, Mechanism, SaslError, choose
from smtpmaild.facts import Log
from smtpmaild.smtp.client import Challenge, ClientSession, Event, Failed, HandshakeDue, SignedIn
from smtpmaild.smtp.reply import OwnReply, Reply


class NotConnectedError(Exception):
    """No mail can be sent over it. reply: why.  is_insecure: the server has no TLS to offer, or none that proves who it
    is."""

    def __init__(self, reply: Reply, *, is_insecure: bool = False) -> None:
        super().__init__(str(reply))
        self.reply = reply
        self.is_insecure = is_insecure


class _HandshakeError(Exception):
    """What `may` goes on without. is_theirs: by what the server said in the handshake, not by us or the network."""

    def __init__(self, error: Exception, *, has_begun: bool) -> None:
        super().__init__(_why(error))
        self.is_theirs = has_begun and isinstance(error, ssl.SSLError)


@dataclass(frozen=True, slots=True)
class Manner:
    """How servers of one target are spoken to. implicit_tls: the handshake comes before the greeting."""

    options: SessionOptions
    hostname: str
    log: Log
    is_lmtp: bool = False
    implicit_tls: bool = False


class Dialer:
    """Makes connections of one manner; keeps what they share."""

    def __init__(self, manner: Manner) -> None:
        self._manner = manner
        self._options = manner.options
        self._hostname = manner.options.hello or manner.hostname
        self._limits = limits(manner.options.timeouts)
        self._context: ssl.SSLContext | None = None

    async def connect(self, endpoint: Endpoint) -> Channel:
        """Raises NotConnectedError."""
        try:
            return await self._connect(endpoint, is_clear=self._options.tls == "none")
        except _HandshakeError as error:
            if self._options.tls != "may":
                reply = OwnReply(451, "4.7.5", f"TLS handshake failed: {error}")
                raise NotConnectedError(reply, is_insecure=error.is_theirs) from None
            self._manner.log.warning("tls_handshake_failed", remote=str(endpoint), cause=str(error), then="clear text")
        return await self._connect(endpoint, is_clear=True)

    async def _connect(self, endpoint: Endpoint, *, is_clear: bool) -> Channel:
        channel = await self._reach(endpoint)
        try:
            _expect(await channel.event())
            if not is_clear and not channel.is_secure:
                await self._encrypt(channel)
            if self._options.username:
                await self._sign_in(channel)
        except NotConnectedError:
            if channel.session.is_sound:
                await channel.quit()
            channel.abort()
            raise
        except BaseException:
            channel.abort()
            raise
        return channel

    async def _reach(self, endpoint: Endpoint) -> Channel:
        session = ClientSession(self._hostname, is_lmtp=self._manner.is_lmtp)
        channel = Channel(session, endpoint, self._limits)
        try:
            async with asyncio.timeout(self._options.timeouts.connect):
                await self._open(channel)
        except TimeoutError:
            raise NotConnectedError(OwnReply(451, "4.4.1", "Timed out while connecting")) from None
        except ssl.SSLError as error:
            raise _HandshakeError(error, has_begun=self._context is not None) from None
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else str(error)
            raise NotConnectedError(OwnReply(451, "4.4.1", f"Cannot connect: {why}")) from None
        return channel

    async def _open(self, channel: Channel) -> None:
        loop, endpoint = asyncio.get_running_loop(), channel.endpoint
        if not endpoint.port:
            await loop.create_unix_connection(lambda: channel, endpoint.host)
            return
        source = self._options.source_ipv6 if ":" in endpoint.host else self._options.source_ipv4
        context = await self._client_context() if self._manner.implicit_tls else None
        await loop.create_connection(
            lambda: channel,
            endpoint.host,
            endpoint.port,
            local_addr=(source, 0) if source else None,
            ssl=context,
            server_hostname=endpoint.name if context else None,
        )
        if context:
            channel.note_tls(context)

    async def _encrypt(self, channel: Channel) -> None:
        """Raises NotConnectedError where TLS has to be and cannot, _HandshakeError with the connection gone."""
        is_needed = self._options.tls != "may"
        if "STARTTLS" not in channel.session.offer:
            if is_needed:
                reply = OwnReply(451, "4.7.4", "TLS is required, but the server does not offer it")
                raise NotConnectedError(reply, is_insecure=True)
            return
        try:
            context = await self._client_context()
            channel.session.start_tls()
            event = await channel.event()
            if isinstance(event, HandshakeDue):
                await channel.start_tls(context, self._options.timeouts.tls_handshake)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError; ValueError: of a name that is none
            raise _HandshakeError(error, has_begun=self._context is not None) from None
        if isinstance(event, HandshakeDue):
            channel.session.secured()
            _expect(await channel.event())
        elif isinstance(event, Failed) and not channel.session.is_sound:
            raise NotConnectedError(event.reply)
        elif isinstance(event, Failed) and is_needed:
            reply = OwnReply(451, "4.7.4", f"TLS is required, but the server refused it: {event.reply}")
            raise NotConnectedError(reply, is_insecure=event.reply.is_permanent)

    async def _client_context(self) -> ssl.SSLContext:
        if self._context is None:  # reading the authorities takes 10 ms
            self._context = await asyncio.to_thread(_make_context, self._options)
        return self._context

    async def _sign_in(self, channel: Channel) -> None:
        name = choose(channel.session.offer.mechanisms)
        if name is None:
            raise NotConnectedError(OwnReply(451, "4.7.0", "The server offers no way to sign in that we know"))
        try:
            password = await asyncio.to_thread(_first_line, Path(self._options.password_file))
        except (OSError, UnicodeDecodeError) as error:
            self._manner.log.error("password_unreadable", path=self._options.password_file, cause=str(error))
            raise NotConnectedError(OwnReply(451, "4.3.5", "Cannot read the password for the next hop")) from None
        mechanism = MECHANISMS[name](self._options.username, password)
        event = await _exchange(channel, name, mechanism)
        if isinstance(event, Failed):
            raise NotConnectedError(OwnReply(451, "4.7.8", f"Cannot sign in: {event.reply}"))
        if not mechanism.is_satisfied:
            raise NotConnectedError(OwnReply(451, "4.7.8", "Cannot sign in: the server did not prove that it knows us"))


def _expect(event: Event) -> None:
    """Ready, or NotConnectedError."""
    if isinstance(event, Failed):
        raise NotConnectedError(event.reply)


async def _exchange(channel: Channel, name: str, mechanism: Mechanism) -> Event:
    """SignedIn or Failed."""
    session = channel.session
    session.authenticate(name, mechanism.initial())
    while isinstance(event := await channel.event(), Challenge):
        try:
            session.respond(await asyncio.to_thread(mechanism.respond, event.data))
        except SaslError as error:
            session.respond(None)
            await channel.event()  # the server's word on that is of no interest
            return Failed(OwnReply(451, "4.7.8", str(error)))
    assert isinstance(event, SignedIn | Failed)
    return event


def _why(error: Exception) -> str:
    """What OpenSSL says of it, without the line number of its source."""
    said = getattr(error, "verify_message", "") or getattr(error, "reason", "") or str(error)
    return str(said) or type(error).__name__


def _first_line(path: Path) -> str:
    return path.read_text().split("\n", 1)[0].rstrip("\r")


def _make_context(options: SessionOptions) -> ssl.SSLContext:
    """Raises OSError for authorities that cannot be read."""
    if options.tls == "verify":
        return verifying_context(options.ca_file)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
