package dev.tidemark.ffm.internal;

import java.lang.foreign.MemorySegment;
import java.util.Locale;

/**
 * Checks of memory whose address the kernel gets inside a structure, where the linker, which checks
 * the segments that it passes, does not see it. What no check can say is whether the memory stays
 * there until the call returns.
 */
public final class NativeMemory {
  private NativeMemory() {}

  /**
   * The address of memory that the kernel will read.
   *
   * @throws IllegalArgumentException if it is on the heap or too small
   * @throws IllegalStateException if its arena is closed
   */
  public static long toRead(MemorySegment memory, long offset, long bytes) {
    if (!memory.isNative() || offset < 0 || bytes < 0 || bytes > memory.byteSize() - offset) {
      throw new IllegalArgumentException(
          String.format(
              Locale.ROOT,
              "%d bytes of native memory are needed, from byte %d of %d%s",
              bytes,
              offset,
              memory.byteSize(),
              memory.isNative() ? "" : " of the Java heap"));
    }
    if (!memory.scope().isAlive()) {
      throw new IllegalStateException("memory of a closed arena");
    }
    return memory.address() + offset;
  }

  /**
   * The address of memory that the kernel will write.
   *
   * @throws IllegalArgumentException if it is read-only, on the heap or too small
   * @throws IllegalStateException if its arena is closed
   */
  public static long toWrite(MemorySegment memory, long offset, long bytes) {
    if (memory.isReadOnly()) {
      throw new IllegalArgumentException("read-only memory for the kernel to write");
    }
    return toRead(memory, offset, bytes);
  }
}
