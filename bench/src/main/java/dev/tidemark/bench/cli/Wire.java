package dev.tidemark.bench.cli;

import dev.tidemark.bench.guest.Throughput;
import dev.tidemark.ffm.IoVectors;
import dev.tidemark.ffm.LinuxException;
import dev.tidemark.ffm.Socket;
import java.io.ByteArrayOutputStream;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.charset.StandardCharsets;
import java.time.Duration;

/**
 * The lines that the two commands exchange before and after the migration stream, on the same
 * connection: what guest it will be, whether there is room for it, and how it fared there.
 */
final class Wire {
  static final String MACHINE = "tidemark-selfcheck";
  static final String STATE = "tidemark/selfcheck";
  static final String DIGEST = "tidemark/digest";

  /** The section of a guest's device is named after it. */
  static final String DEVICE = "dmalog";

  /**
   * Maximum length of a line, in bytes: all the memory that a connection costs before it is known.
   */
  private static final int MAX_LINE = 4096;

  /**
   * First line, from the source.
   *
   * @param nonce chosen anew for each migration; the destination's report is about it
   */
  record Hello(String tidemark, GuestKind guest, long ramBytes, Long nonce) {
    /** Whether it is one of a tidemark. */
    boolean isWhole() {
      return tidemark != null && guest != null && nonce != null;
    }
  }

  /** Answer, from the destination: null if it has made room. */
  record Answer(String error) {}

  /**
   * Last line, from the destination, once the guest has checked every page there.
   *
   * @param throughput of the guest there, as fast as it could, until it had checked every page;
   *     null from a destination that does not know it
   * @param deviceDigest of the state that its device has there; 0 if it has none
   * @param memoryDigest of its memory at the handover, with the hello's nonce as key: the source
   *     has not sent it, so a destination that says it has had the memory
   */
  record Report(
      boolean verified,
      String error,
      long firstRunNanos,
      long digestNanos,
      long pagesChecked,
      Throughput throughput,
      long deviceDigest,
      long memoryDigest) {}

  private Wire() {}

  /** A message as it is sent. */
  static byte[] line(Object message) {
    return (Json.of(message) + "\n").getBytes(StandardCharsets.UTF_8);
  }

  static void send(Socket socket, Object message) {
    byte[] line = line(message);
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment memory = arena.allocate(line.length);
      MemorySegment.copy(line, 0, memory, ValueLayout.JAVA_BYTE, 0, line.length);
      IoVectors vectors = new IoVectors(arena, 1);
      vectors.add(memory);
      socket.writeFully(vectors);
    }
  }

  /**
   * Sends a refusal, and reads on until the other side has closed, for a second at most: a
   * connection that is closed with bytes unread is reset, and the refusal may be lost with it.
   *
   * @throws LinuxException if the other side is gone
   */
  static void refuse(Socket socket, String why) {
    send(socket, new Answer(why));
    socket.shutdownOutput();
    long deadline = System.nanoTime() + 1_000_000_000L;
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment unread = arena.allocate(MAX_LINE);
      long left;
      do {
        left = (deadline - System.nanoTime()) / 1_000_000;
      } while (left > 0
          && socket.awaitReadable((int) left)
          && socket.read(unread, unread.byteSize()) > 0);
    }
  }

  /**
   * Reads a line, byte by byte: what follows it is the stream's.
   *
   * @throws IllegalStateException if there is none in time, or it is something else
   */
  static <T> T receive(Socket socket, Class<T> type, Duration limit) {
    long deadline = System.nanoTime() + limit.toNanos();
    var line = new ByteArrayOutputStream();
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment one = arena.allocate(1);
      while (true) {
        long left = deadline - System.nanoTime();
        if (left <= 0 || !socket.awaitReadable((int) (left / 1_000_000))) {
          throw new IllegalStateException(
              "the other side said nothing for " + limit.toSeconds() + " s");
        }
        if (socket.read(one, 1) == 0) {
          throw new IllegalStateException("the other side closed the connection");
        }
        byte b = one.get(ValueLayout.JAVA_BYTE, 0);
        if (b == '\n') {
          break;
        }
        line.write(b);
        if (line.size() > MAX_LINE) {
          throw new IllegalStateException("the other side is no tidemark: its line does not end");
        }
      }
    }
    return parse(line.toString(StandardCharsets.UTF_8), type);
  }

  /**
   * A message that was received.
   *
   * @throws IllegalStateException if it is something else
   */
  static <T> T parse(String line, Class<T> type) {
    T message;
    try {
      message = Json.read(line, type);
    } catch (RuntimeException e) {
      message = null;
    }
    if (message == null) {
      throw new IllegalStateException("the other side is no tidemark: it did not say what it is");
    }
    return message;
  }
}
