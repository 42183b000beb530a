package dev.tidemark.engine.stream;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;

import dev.tidemark.ffm.LinuxException;
import dev.tidemark.ffm.Socket;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;

/**
 * The stream's way in: large reads into a buffer, out of which fields and pages are taken. It knows
 * at which byte of the stream it is, and inside what, for when the stream ends there.
 *
 * <p>Footprint: {@value #BUFFER_BYTES} bytes off-heap, from {@link #open} until its arena is
 * closed. Threading: one thread. Cost: no allocation.
 */
final class BufferedInput implements SectionInput {
  /** So much stays in the cache until it is taken: 512 KiB, and a transfer takes 8 % longer. */
  private static final int BUFFER_BYTES = 256 << 10;

  private final Socket socket;
  private MemorySegment buffer;

  /** Bytes of the stream before the buffer's first. */
  private long base;

  private long next;
  private long limit;
  private String inside = "the header";

  BufferedInput(Socket socket) {
    this.socket = socket;
  }

  /**
   * Allocates the buffer.
   *
   * @param arena holds it
   */
  void open(Arena arena) {
    buffer = arena.allocate(BUFFER_BYTES, 64);
  }

  /** Says what is read from here on, for the message if the stream ends in it. */
  void enter(String what) {
    inside = what;
  }

  @Override
  public long position() {
    return base + next;
  }

  /** Waits for more, once all that the buffer held is used up; false if the stream ended. */
  private boolean fill() {
    base += limit;
    next = 0;
    limit = 0;
    try {
      limit = socket.read(buffer, BUFFER_BYTES);
    } catch (LinuxException e) {
      throw new StreamException(
          "connection lost at byte " + base + " inside " + inside + ": " + e.getMessage(), e);
    }
    return limit > 0;
  }

  private void refill() {
    if (!fill()) {
      throw new StreamException("stream ended at byte " + base + " inside " + inside);
    }
  }

  /** Reads a byte, or -1 if the stream ends before it, for where it may. */
  int be8OrEnd() {
    return next == limit && !fill() ? -1 : be8();
  }

  @Override
  public int be8() {
    if (next == limit) {
      refill();
    }
    return Byte.toUnsignedInt(buffer.get(JAVA_BYTE, next++));
  }

  @Override
  public int be16() {
    return be8() << 8 | be8();
  }

  @Override
  public int be32() {
    if (limit - next < 4) {
      return be16() << 16 | be16();
    }
    int value = buffer.get(StreamFormat.BE32, next);
    next += 4;
    return value;
  }

  @Override
  public long be64() {
    if (limit - next < 8) {
      return (long) be32() << 32 | Integer.toUnsignedLong(be32());
    }
    long value = buffer.get(StreamFormat.BE64, next);
    next += 8;
    return value;
  }

  @Override
  public void bytes(byte[] target) {
    bytes(MemorySegment.ofArray(target));
  }

  @Override
  public void bytes(MemorySegment target) {
    bytes(target, 0, target.byteSize());
  }

  void bytes(MemorySegment target, long offset, long length) {
    long done = 0;
    while (done < length) {
      if (next == limit) {
        refill();
      }
      long piece = Math.min(length - done, limit - next);
      MemorySegment.copy(buffer, next, target, offset + done, piece);
      next += piece;
      done += piece;
    }
  }

  @Override
  public void skip(long bytes) {
    long left = bytes;
    while (left > 0) {
      if (next == limit) {
        refill();
      }
      long piece = Math.min(left, limit - next);
      next += piece;
      left -= piece;
    }
  }
}
