package dev.tidemark.ffm.vfio;

import java.util.Locale;

/**
 * A range of IO virtual addresses, as {@code struct vfio_device_feature_dma_logging_range} has it.
 *
 * @param iova its first address, unsigned
 * @param length bytes, more than 0, unsigned
 */
public record DmaRange(long iova, long length) {
  @Override
  public String toString() {
    return String.format(Locale.ROOT, "0x%x bytes at 0x%x", length, iova);
  }
}
