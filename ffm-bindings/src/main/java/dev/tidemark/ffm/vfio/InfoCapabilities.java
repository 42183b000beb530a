package dev.tidemark.ffm.vfio;

import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_SHORT;

import java.lang.foreign.MemorySegment;
import java.util.LinkedHashMap;
import java.util.Locale;
import java.util.Map;

/**
 * A chain of capabilities behind an information structure: each says at which offset the next is
 * ({@code struct vfio_info_cap_header}). Nothing that it says is believed before it was checked.
 */
final class InfoCapabilities {
  private static final long ID = VfioUapi.offset(VfioUapi.VFIO_INFO_CAP_HEADER_LAYOUT, "id");
  private static final long NEXT = VfioUapi.offset(VfioUapi.VFIO_INFO_CAP_HEADER_LAYOUT, "next");
  private static final long HEADER = VfioUapi.VFIO_INFO_CAP_HEADER_LAYOUT.byteSize();

  private InfoCapabilities() {}

  /**
   * Follows a chain.
   *
   * @param info the structure and all behind it
   * @param fixed bytes of the structure itself, in which no capability can be
   * @param first where the first capability is, 0 if there is none
   * @return each from its header to the end of {@code info}, by id; of several with one id the
   *     first
   * @throws IllegalStateException if the chain leaves the memory or runs in a circle
   */
  static Map<Integer, MemorySegment> parse(MemorySegment info, long fixed, long first) {
    Map<Integer, MemorySegment> found = new LinkedHashMap<>();
    long mostThereCanBe = info.byteSize() / HEADER;
    for (long at = first; at != 0; at = Integer.toUnsignedLong(info.get(JAVA_INT, at + NEXT))) {
      if (at < fixed || at % 4 != 0 || at > info.byteSize() - HEADER) {
        throw new IllegalStateException(
            String.format(Locale.ROOT, "capability at offset %d of %d bytes", at, info.byteSize()));
      }
      if (mostThereCanBe-- == 0) {
        throw new IllegalStateException("the capability chain runs in a circle");
      }
      found.putIfAbsent(Short.toUnsignedInt(info.get(JAVA_SHORT, at + ID)), info.asSlice(at));
    }
    return found;
  }
}
