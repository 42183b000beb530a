package dev.tidemark.engine.stream;

import dev.tidemark.ffm.IoVectors;
import dev.tidemark.ffm.LinuxException;
import dev.tidemark.ffm.Socket;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.Locale;

/**
 * The way back, from the destination to the source, on the same connection: be16 type, be16 length,
 * data (QEMU {@code migration/migration.c}, {@code source_return_path_thread}). The destination
 * acknowledges with PONG and ends with SHUT; the source waits for them.
 *
 * <p>Threading: one thread at a time. Footprint: some bytes off-heap.
 */
public final class ReturnPath implements AutoCloseable {
  private static final int BYTES = 8;

  /** For the rest of a message of which the beginning is there, in milliseconds. */
  private static final int NOW_MILLIS = 1000;

  private final Socket socket;
  private final Arena arena = Arena.ofShared();
  private final MemorySegment message;
  private final IoVectors vectors;

  /**
   * @param socket the connection; borrowed
   */
  public ReturnPath(Socket socket) {
    this.socket = socket;
    this.message = arena.allocate(BYTES, 8);
    this.vectors = new IoVectors(arena, 1);
  }

  /**
   * Destination: all that came before PING was loaded.
   *
   * @param id the PING's
   * @throws LinuxException if the source is gone
   */
  public void pong(int id) {
    send(StreamFormat.RP_PONG, id);
  }

  /**
   * Destination: it is over.
   *
   * @param status 0 if the guest runs here, anything else if it does not
   * @throws LinuxException if the source is gone
   */
  public void shut(int status) {
    send(StreamFormat.RP_SHUT, status);
  }

  private void send(int type, int value) {
    message.set(StreamFormat.BE16, 0, (short) type);
    message.set(StreamFormat.BE16, 2, (short) 4);
    message.set(StreamFormat.BE32, 4, value);
    vectors.clear();
    vectors.add(message, 0, BYTES);
    socket.writeFully(vectors);
  }

  /**
   * Source: makes sure that no answer came before its question, which is asked next. A destination
   * that gave up has said so by then, and one that answers what it was not asked is not believed.
   * Cost: one call.
   *
   * @param question that comes next, for the message
   * @throws StreamException if there is anything to read, or the connection is closed
   */
  public void expectNothingBefore(String question) {
    boolean quiet;
    try {
      quiet = !socket.awaitReadable(0);
    } catch (LinuxException e) {
      throw lost("before " + question, e);
    }
    if (quiet) {
      return;
    }
    int type = receive("nothing", "before " + question, NOW_MILLIS);
    int value = message.get(StreamFormat.BE32, 4);
    if (type == StreamFormat.RP_SHUT) {
      throw gaveUp("nothing before " + question, value);
    }
    throw unexpected("nothing before " + question, type, value);
  }

  /**
   * Source: waits until the destination has loaded all that was written before a PING.
   *
   * @param id the PING's
   * @param timeoutMillis milliseconds, 0 or more
   * @throws StreamException if the time is up, the connection is lost, the destination gave up or
   *     said anything else
   */
  public void awaitPong(int id, int timeoutMillis) {
    int type = receive("PONG", "while waiting for PONG", timeoutMillis);
    int value = message.get(StreamFormat.BE32, 4);
    if (type == StreamFormat.RP_SHUT) {
      throw gaveUp("PONG " + id, value);
    }
    if (value != id) {
      throw unexpected("PONG " + id, type, value);
    }
  }

  /**
   * Source: waits for the destination's last word.
   *
   * @param timeoutMillis milliseconds, 0 or more
   * @return the status, 0 if the guest runs there
   * @throws StreamException if the time is up, the connection is lost or the destination said
   *     anything else
   */
  public int awaitShut(int timeoutMillis) {
    int type = receive("SHUT", "while waiting for SHUT", timeoutMillis);
    int value = message.get(StreamFormat.BE32, 4);
    if (type != StreamFormat.RP_SHUT) {
      throw unexpected("SHUT", type, value);
    }
    return value;
  }

  private static StreamException gaveUp(String expected, int status) {
    return new StreamException(
        String.format(
            Locale.ROOT,
            "return path: expected %s, found SHUT %d: the destination gave up, and says there why",
            expected,
            status));
  }

  private static StreamException unexpected(String expected, int type, int value) {
    String found = type == StreamFormat.RP_PONG ? "PONG " + value : StreamFormat.message(type);
    return new StreamException("return path: expected " + expected + ", found " + found);
  }

  /** Reads one message of 4 bytes of data, the length that PONG and SHUT have. */
  private int receive(String expected, String when, int timeoutMillis) {
    long deadline = System.nanoTime() + timeoutMillis * 1_000_000L;
    read(0, 4, deadline, expected, when, timeoutMillis);
    int type = Short.toUnsignedInt(message.get(StreamFormat.BE16, 0));
    int length = Short.toUnsignedInt(message.get(StreamFormat.BE16, 2));
    if (type != StreamFormat.RP_PONG && type != StreamFormat.RP_SHUT) {
      throw unexpected(expected, type, 0);
    }
    if (length != 4) {
      throw new StreamException(
          "return path: message of type " + type + ": expected 4 bytes of data, found " + length);
    }
    read(4, 4, deadline, expected, when, timeoutMillis);
    return type;
  }

  private void read(
      int offset, int length, long deadline, String expected, String when, int timeoutMillis) {
    vectors.clear();
    vectors.add(message, offset, length);
    while (vectors.remaining() > 0) {
      long left = Math.max(0, (deadline - System.nanoTime()) / 1_000_000);
      try {
        if (!socket.awaitReadable((int) left)) {
          throw new StreamException("return path: no " + expected + " in " + timeoutMillis + " ms");
        }
        if (socket.read(vectors) == 0) {
          throw new StreamException("return path: connection closed " + when);
        }
      } catch (LinuxException e) {
        throw lost(when, e);
      }
    }
  }

  private static StreamException lost(String when, LinuxException e) {
    return new StreamException("return path: connection lost " + when + ": " + e.getMessage(), e);
  }

  /** Frees the memory; the socket stays the caller's. */
  @Override
  public void close() {
    arena.close();
  }
}
