package dev.tidemark.engine.stream;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;

import dev.tidemark.engine.log.RamBlock;
import dev.tidemark.ffm.Errno;
import dev.tidemark.ffm.IoVectors;
import dev.tidemark.ffm.LinuxException;
import dev.tidemark.ffm.Socket;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;

/**
 * The stream's way out: small fields are put together here, pages are only pointed to, and one
 * gathering write takes both.
 *
 * <p>Footprint: {@value #SMALL_BYTES} bytes and 16 KiB, off-heap, from {@link #open} to {@link
 * #close()}. Threading: one thread; the counters any.
 */
final class GatherOutput implements SectionOutput {
  private static final int SMALL_BYTES = 64 << 10;

  private final Socket socket;
  private final Throttle throttle;
  private MemorySegment small;
  private IoVectors vectors;

  /** Those that {@link #memory} points into. */
  private RamBlock[] blocks = {};

  /** Small fields that no vector points to yet lie between these. */
  private long start;

  private long end;

  /** Whether a page was among what was put here so far. */
  private boolean anyPage;

  private volatile long firstPageNanos;
  private volatile long bytes;
  private volatile long calls;

  GatherOutput(Socket socket, Throttle throttle) {
    this.socket = socket;
    this.throttle = throttle;
  }

  /**
   * Allocates the buffers.
   *
   * @param arena holds them
   */
  void open(Arena arena) {
    small = arena.allocate(SMALL_BYTES, 64);
    vectors = new IoVectors(arena, IoVectors.MAX);
  }

  /** Forgets what was not written, before the arena is closed. */
  void close() {
    if (vectors != null) {
      vectors.clear();
      start = end;
    }
  }

  /** Says which blocks' memory is pointed to, for the message if some of it cannot be read. */
  void blocks(RamBlock[] all) {
    blocks = all;
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

  /** Notes that a page's record was put here. */
  void page() {
    anyPage = true;
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
    if (vectors == null) {
      return;
    }
    pointToSmall();
    long length = vectors.remaining();
    if (length > 0) {
      if (anyPage && firstPageNanos == 0) {
        firstPageNanos = System.nanoTime();
      }
      try {
        calls += socket.writeFully(vectors);
      } catch (LinuxException e) {
        if (e.errno() == Errno.EFAULT) {
          throw BlockMemory.unreadable(blocks, vectors.firstAddress(), e);
        }
        throw e;
      }
      bytes += length;
    }
    vectors.clear();
    start = 0;
    end = 0;
    if (length > 0) {
      throttle.pace(length);
    }
  }

  /** When the first page was handed to the kernel; 0 if none was. */
  long firstPageNanos() {
    return firstPageNanos;
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
