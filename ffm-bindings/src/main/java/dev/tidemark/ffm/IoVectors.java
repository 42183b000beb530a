package dev.tidemark.ffm;

import static java.lang.foreign.ValueLayout.JAVA_LONG;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.Objects;

/**
 * A reusable array of {@code struct iovec} for gathering writes and scattering reads.
 *
 * <p>The memory that is pointed to stays reachable from here until {@link #clear()}, and a call
 * over memory whose arena is closed is refused. What has no arena (a {@link Mapping}) and what is
 * closed during the call is the caller's to keep.
 *
 * <p>Footprint: 16 bytes an element, off-heap. Threading: one thread at a time. Nothing here
 * allocates after construction.
 */
public final class IoVectors {
  /** The most elements that one call takes, {@code IOV_MAX} of {@code limits.h}. */
  public static final int MAX = 1024;

  private static final long BYTES = 16;

  final MemorySegment array;
  private final int capacity;

  /** The memory that the elements are in. */
  private final MemorySegment[] pointedTo;

  private int segments;

  /**
   * Two of these with what there is to know about them: whoever gathers takes turns between the
   * guest's memory and what is said about it, and asking a segment takes longer than all the rest.
   */
  private MemorySegment one = MemorySegment.NULL;

  private long oneStart;
  private long oneBytes;
  private MemorySegment two = MemorySegment.NULL;
  private long twoStart;
  private long twoBytes;
  private boolean readOnly;
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
    this.pointedTo = new MemorySegment[capacity];
  }

  /**
   * Appends memory.
   *
   * @param memory native, not empty
   * @throws IllegalStateException if the array is full
   */
  public void add(MemorySegment memory) {
    add(memory, 0, memory.byteSize());
  }

  /**
   * Appends a part of memory, without a slice.
   *
   * @param memory native
   * @param offset bytes into it
   * @param bytes the length of the part, more than 0
   * @throws IllegalArgumentException if the memory is on the heap
   * @throws IndexOutOfBoundsException if the part is not inside
   * @throws IllegalStateException if the array is full
   */
  public void add(MemorySegment memory, long offset, long bytes) {
    if (memory != one && memory != two) {
      pointTo(memory, offset, bytes);
    }
    if (memory == one) {
      Objects.checkFromIndexSize(offset, bytes, oneBytes);
      add(oneStart + offset, bytes);
    } else {
      Objects.checkFromIndexSize(offset, bytes, twoBytes);
      add(twoStart + offset, bytes);
    }
  }

  private void pointTo(MemorySegment memory, long offset, long bytes) {
    Objects.checkFromIndexSize(offset, bytes, memory.byteSize());
    if (!memory.isNative() || bytes == 0) {
      throw new IllegalArgumentException("no native memory: " + memory);
    }
    // Each is in an element or more, but for those of adds that failed.
    if (count == capacity || segments == capacity) {
      throw full();
    }
    pointedTo[segments++] = memory;
    readOnly |= memory.isReadOnly();
    one = two;
    oneStart = twoStart;
    oneBytes = twoBytes;
    two = memory;
    twoStart = memory.address();
    twoBytes = memory.byteSize();
  }

  /** Appends whatever is at an address. */
  void add(long address, long bytes) {
    if (bytes <= 0) {
      throw new IllegalArgumentException("a vector of " + bytes + " bytes");
    }
    if (count == capacity) {
      throw full();
    }
    // The sum could overflow only with memory that is added many times over.
    long sum = Math.addExact(remaining, bytes);
    array.set(JAVA_LONG, count * BYTES, address);
    array.set(JAVA_LONG, count * BYTES + 8, bytes);
    count++;
    remaining = sum;
  }

  private IllegalStateException full() {
    return new IllegalStateException("all " + capacity + " vectors are in use");
  }

  /** How many elements can still be added. */
  public int room() {
    return capacity - count;
  }

  /** How many bytes are still to move. */
  public long remaining() {
    return remaining;
  }

  /**
   * Where the memory that is still to move begins. After a call that failed with {@code EFAULT},
   * this memory or some after it cannot be read or written.
   *
   * @throws IllegalStateException if nothing is left to move
   */
  public long firstAddress() {
    if (first == count) {
      throw new IllegalStateException("no vectors are left");
    }
    return array.get(JAVA_LONG, first * BYTES);
  }

  /** Forgets all elements. */
  public void clear() {
    first = 0;
    count = 0;
    remaining = 0;
    readOnly = false;
    while (segments > 0) {
      pointedTo[--segments] = null;
    }
    one = MemorySegment.NULL;
    oneBytes = 0;
    two = MemorySegment.NULL;
    twoBytes = 0;
  }

  /** Before a call that writes the memory. */
  void checkWritable() {
    if (readOnly) {
      throw new IllegalArgumentException("read-only memory to read into");
    }
  }

  /**
   * Where the elements that are still to move begin: an address rather than a slice, which would be
   * allocated for every call. The caller keeps these vectors reachable meanwhile.
   *
   * @throws IllegalStateException if some of the memory is gone
   */
  long pending() {
    checkAlive(array);
    for (int i = 0; i < segments; i++) {
      checkAlive(pointedTo[i]);
    }
    return array.address() + first * BYTES;
  }

  private static void checkAlive(MemorySegment memory) {
    if (!memory.scope().isAlive()) {
      throw new IllegalStateException("memory of a closed arena");
    }
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
