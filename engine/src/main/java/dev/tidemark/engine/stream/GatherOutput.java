package dev.tidemark.engine.stream;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;

import dev.tidemark.ffm.IoVectors;
import dev.tidemark.ffm.Socket;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;

/**
 * The stream's way out: small fields are put together here, pages are only pointed to, and one
 * gathering write takes both.
 *
 * <p>Footprint: {@value #SMALL_BYTES} bytes and 16 KiB, off-heap. Threading: one thread; the
 * counters any.
 */
final class GatherOutput implements SectionOutput {
  private static final int SMALL_BYTES = 64 << 10;

  private final Socket socket;
  private final Throttle throttle;
  private final MemorySegment small;
  private final IoVectors vectors;

  /** Small fields that no vector points to yet lie between these. */
  private long start;

  private long end;

  private volatile long bytes;
  private volatile long calls;

  GatherOutput(Socket socket, Throttle throttle) {
    this.socket = socket;
    this.throttle = throttle;
    Arena arena = Arena.ofAuto();
    this.small = arena.allocate(SMALL_BYTES, 64);
    this.vectors = new IoVectors(arena, IoVectors.MAX);
  }

  private long take(long length) {
    if (SMALL_BYTES - end < length) {
      flush();
    }
    long at = end;
    end += length;
    return at;
  }

  @Override
  public void be8(int value) {
    small.set(JAVA_BYTE, take(1), (byte) value);
  }

  @Override
  public void be16(int value) {
    small.set(StreamFormat.BE16, take(2), (short) value);
  }

  @Override
  public void be32(int value) {
    small.set(StreamFormat.BE32, take(4), value);
  }

  @Override
  public void be64(long value) {
    small.set(StreamFormat.BE64, take(8), value);
  }

  @Override
  public void bytes(byte[] source) {
    bytes(MemorySegment.ofArray(source));
  }

  @Override
  public void bytes(MemorySegment source) {
    long done = 0;
    while (done < source.byteSize()) {
      long length = Math.min(source.byteSize() - done, SMALL_BYTES);
      MemorySegment.copy(source, done, small, take(length), length);
      done += length;
    }
  }

  /** Writes memory by pointing to it: it is read at the next {@link #flush()}, or at an earlier. */
  void memory(MemorySegment memory, long offset, long length) {
    // A vector for the small fields before, one for the memory, one for what flush may still find.
    if (vectors.room() < 3) {
      flush();
    }
    pointToSmall();
    vectors.add(memory, offset, length);
  }

  private void pointToSmall() {
    if (end > start) {
      vectors.add(small, start, end - start);
      start = end;
    }
  }

  /** Writes all that there is. */
  void flush() {
    pointToSmall();
    long length = vectors.remaining();
    if (length > 0) {
      calls += socket.writeFully(vectors);
      bytes += length;
    }
    vectors.clear();
    start = 0;
    end = 0;
    if (length > 0) {
      throttle.pace(length);
    }
  }

  /** How many bytes were written to the socket. */
  long bytes() {
    return bytes;
  }

  /** How many {@code writev} calls it took. */
  long calls() {
    return calls;
  }
}
