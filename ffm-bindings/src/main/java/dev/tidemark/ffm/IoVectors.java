package dev.tidemark.ffm;

import static java.lang.foreign.ValueLayout.JAVA_LONG;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;

/**
 * A reusable array of {@code struct iovec} for gathering writes and scattering reads.
 *
 * <p>Footprint: 16 bytes an element, off-heap. Threading: one thread at a time. Nothing here
 * allocates after construction. The memory that is pointed to must stay alive until it was moved.
 */
public final class IoVectors {
  /** The most elements that one call takes, {@code IOV_MAX} of {@code limits.h}. */
  public static final int MAX = 1024;

  private static final long BYTES = 16;

  final MemorySegment array;
  private final int capacity;
  private int first;
  private int count;
  private long remaining;

  /**
   * @param arena holds the array
   * @param capacity elements, 1 to {@link #MAX}
   */
  public IoVectors(Arena arena, int capacity) {
    if (capacity < 1 || capacity > MAX) {
      throw new IllegalArgumentException("capacity " + capacity + " is not in 1.." + MAX);
    }
    this.array = arena.allocate(capacity * BYTES, 8);
    this.capacity = capacity;
  }

  /**
   * Appends a piece of memory.
   *
   * @param address where it starts
   * @param bytes its length, more than 0
   * @throws IllegalStateException if the array is full
   */
  public void add(long address, long bytes) {
    if (bytes <= 0) {
      throw new IllegalArgumentException("a vector of " + bytes + " bytes");
    }
    if (count == capacity) {
      throw new IllegalStateException("all " + capacity + " vectors are in use");
    }
    array.set(JAVA_LONG, count * BYTES, address);
    array.set(JAVA_LONG, count * BYTES + 8, bytes);
    count++;
    remaining += bytes;
  }

  /** How many elements can still be added. */
  public int room() {
    return capacity - count;
  }

  /** How many bytes are still to move. */
  public long remaining() {
    return remaining;
  }

  /** Forgets all elements. */
  public void clear() {
    first = 0;
    count = 0;
    remaining = 0;
  }

  /**
   * Where the elements that are still to move begin: an address rather than a slice, which would be
   * allocated for every call. The caller keeps these vectors reachable meanwhile.
   */
  long pending() {
    return array.address() + first * BYTES;
  }

  int pendingCount() {
    return count - first;
  }

  /** Takes note that so many bytes were moved: a call may move fewer than it was given. */
  void advance(long bytes) {
    remaining -= bytes;
    while (bytes > 0) {
      long offset = first * BYTES;
      long length = array.get(JAVA_LONG, offset + 8);
      if (bytes < length) {
        array.set(JAVA_LONG, offset, array.get(JAVA_LONG, offset) + bytes);
        array.set(JAVA_LONG, offset + 8, length - bytes);
        return;
      }
      bytes -= length;
      first++;
    }
  }
}
