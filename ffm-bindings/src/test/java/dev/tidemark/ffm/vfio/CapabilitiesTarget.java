package dev.tidemark.ffm.vfio;

import dev.tidemark.ffm.Mapping;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.Map;

/**
 * A chain of capabilities in memory that ends where none may be read. The first byte is the fixed
 * length, the next four where the chain begins, the rest is the memory.
 */
public final class CapabilitiesTarget {
  private static final MemorySegment PAGE = Mapping.guarded(4096).segment();

  private CapabilitiesTarget() {}

  /** Called by Jazzer. */
  public static void fuzzerTestOneInput(byte[] data) {
    int length = data.length - 5 & ~3;
    if (length < 0 || length > 4096) {
      return;
    }
    MemorySegment info = PAGE.asSlice(4096 - length);
    MemorySegment.copy(data, 5, info, ValueLayout.JAVA_BYTE, 0, length);
    long fixed = Byte.toUnsignedInt(data[0]);
    long first =
        Integer.toUnsignedLong(MemorySegment.ofArray(data).get(ValueLayout.JAVA_INT_UNALIGNED, 1));
    try {
      Map<Integer, MemorySegment> found = InfoCapabilities.parse(info, fixed, first);
      for (MemorySegment capability : found.values()) {
        long at = capability.address() - info.address();
        if (at < fixed || at + capability.byteSize() != info.byteSize()) {
          throw new AssertionError("a capability at " + at + " of " + info.byteSize());
        }
      }
    } catch (IllegalStateException e) {
      // The chain is wrong, and says so.
    }
  }
}
