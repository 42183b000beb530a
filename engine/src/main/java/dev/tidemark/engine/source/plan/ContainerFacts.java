package dev.tidemark.engine.source.plan;

import dev.tidemark.ffm.Pages;
import java.util.List;
import java.util.Locale;

/**
 * What is known about one IO address space and the devices in it.
 *
 * @param name what the operator calls it
 * @param vIommu whether the guest's own IOMMU says what is mapped there
 * @param type1 the limits of a VFIO type1 container that offers dirty tracking ({@code
 *     VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION}); null for IOMMUFD, and for a container that does not
 * @param devices the devices in it, at least one
 */
public record ContainerFacts(
    String name, boolean vIommu, Type1Limits type1, List<DeviceFacts> devices) {

  /**
   * What a type1 container says of its dirty bitmaps.
   *
   * @param maxDirtyBitmapSize bytes of the largest
   * @param pageSize bytes that a bit stands for: the smallest of its page sizes
   */
  public record Type1Limits(long maxDirtyBitmapSize, long pageSize) {
    /** Checks that both are there. */
    public Type1Limits {
      if (maxDirtyBitmapSize <= 0 || pageSize < Pages.SIZE || Long.bitCount(pageSize) != 1) {
        throw new IllegalArgumentException(
            String.format(
                Locale.ROOT,
                "type1 limits: bitmap of %d bytes, pages of %d",
                maxDirtyBitmapSize,
                pageSize));
      }
    }

    /** How much memory the largest bitmap can stand for, in bytes. */
    public long bytes() {
      long pages =
          maxDirtyBitmapSize > Long.MAX_VALUE / 8 ? Long.MAX_VALUE : maxDirtyBitmapSize * 8;
      return pages > Long.MAX_VALUE / pageSize ? Long.MAX_VALUE : pages * pageSize;
    }
  }

  /** Takes a copy of the list and checks that it is not empty. */
  public ContainerFacts {
    devices = List.copyOf(devices);
    if (devices.isEmpty()) {
      throw new IllegalArgumentException("container " + name + " without devices");
    }
  }
}
