"""Hostile clients on the gRPC port of a service that runs as a process, while good ones use it.

What is right for each kind, which is what its test asks for:

============================================  ====================================================================
what the client does                          what happens to it
============================================  ====================================================================
does not read, and answers no ping            cut off: `no sign of life`; until then it costs one write buffer
reads its socket byte by byte                 the same: from here it can't be told from one that is gone
reads slowly, in small windows                served, as slowly; costs a place in the log, however many streams
does not read answers to control frames       cut off as soon as they are 1 MiB: `answers that are not read`, or before
                                              that as the flood that it is
opens 10,000 streams on one connection        served; more are refused (REFUSED_STREAM), who insists is cut off
opens them over many connections              the last are refused; who has few gets its next
resets streams at once                        cut off: `flood of resets`
CONTINUATION without an end                   cut off after 64 frames: `endless headers`
PING, SETTINGS, empty DATA, WINDOW_UPDATE,    cut off: `flood of …`
PRIORITY
WINDOW_UPDATE beyond 2³¹-1                    the connection's: cut off, `protocol error`; a stream's: reset
announces a message of 1 GiB                  the call ends: RESOURCE_EXHAUSTED; nothing is kept for it
compresses a message                          the call ends: UNIMPLEMENTED; nothing is unpacked
sends more than its request                   is dropped as it comes
headers that unpack to more than 64 KiB       cut off: `endless headers`
large headers on many streams                 each counts as several streams
no HTTP/2                                     cut off: `protocol error`
half a preface, and silence                   cut off: `no handshake in time`
connections that do nothing                   the longest idle make room: `idle where others need room`
no certificate where one is asked for         refused by TLS: `TLS error`
TLS that is begun and not ended               cut off: `no handshake in time`
garbage inside of TLS                         cut off: `TLS error`
renegotiation of TLS                          refused by TLS
============================================  ====================================================================

Cut off means GOAWAY with ENHANCE_YOUR_CALM or the error's own code, and the connection is closed; where the peer has
not got as far as HTTP/2, it is closed. Each is counted by reason, and told in the log once, not once a frame.
"""
