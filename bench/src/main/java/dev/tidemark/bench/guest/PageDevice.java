package dev.tidemark.bench.guest;

import java.lang.foreign.MemorySegment;

/** Whoever writes a guest's memory in its place. */
@FunctionalInterface
public interface PageDevice {
  /**
   * Writes a page; on the guest's thread. It must not wait for anything that a caller of {@link
   * SelfCheckingGuest#pause()} may hold.
   *
   * @param address where in the guest's RAM block, bytes, a multiple of the page
   * @param bytes what, a page of native memory
   */
  void write(long address, MemorySegment bytes);
}
