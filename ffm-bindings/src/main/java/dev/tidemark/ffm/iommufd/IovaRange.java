package dev.tidemark.ffm.iommufd;

import java.util.Locale;

/**
 * A range of IO virtual addresses, as the kernel gives it: with its last address, so that the whole
 * space can be said ({@code struct iommu_iova_range}).
 *
 * @param start its first address, unsigned
 * @param last its last address, unsigned, not less than {@code start}
 */
public record IovaRange(long start, long last) {
  public IovaRange {
    if (Long.compareUnsigned(last, start) < 0) {
      throw new IllegalArgumentException(
          String.format(Locale.ROOT, "range 0x%x to 0x%x", start, last));
    }
  }

  /**
   * Whether all of some addresses are inside.
   *
   * @param iova the first of them
   * @param bytes how many, more than 0
   */
  public boolean contains(long iova, long bytes) {
    long end = iova + (bytes - 1);
    return bytes > 0
        && Long.compareUnsigned(end, iova) >= 0
        && Long.compareUnsigned(iova, start) >= 0
        && Long.compareUnsigned(end, last) <= 0;
  }

  @Override
  public String toString() {
    return String.format(Locale.ROOT, "0x%x to 0x%x", start, last);
  }
}
