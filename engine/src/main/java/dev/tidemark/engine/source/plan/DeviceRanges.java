package dev.tidemark.engine.source.plan;

import dev.tidemark.ffm.Pages;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;

/**
 * Plans the ranges of IOVA that a device is to log, from the sections of the guest's address space:
 * one below 4 GiB, one above, and one for other devices' memory above, each from the first page to
 * the last. Few, as devices take few; wide, as starting anew costs everything the device may have
 * written; three, as memory and device windows above 4 GiB may be a TiB apart (QEMU's {@code
 * vfio_dirty_tracking_update}, hw/vfio/listener.c).
 *
 * <p>Threading: one thread. Cost: a few comparisons a section.
 */
public final class DeviceRanges {
  private static final long UINT32_MAX = 0xFFFF_FFFFL;
  private static final long GIB = 1L << 30;

  /**
   * Addresses to be logged.
   *
   * @param iova the first, unsigned, a page's first
   * @param last the last, unsigned, a page's last
   */
  public record Range(long iova, long last) {
    /** Their number in bytes, as {@code VFIO_DEVICE_FEATURE_DMA_LOGGING_START} takes it. */
    public long bytes() {
      return last - iova + 1;
    }

    @Override
    public String toString() {
      return String.format(Locale.ROOT, "0x%x to 0x%x", iova, last);
    }
  }

  // In the order of QEMU: 32-bit, 64-bit, PCI above 4 GiB.
  private final Range[] found = new Range[3];

  /** Nothing to log yet. */
  public DeviceRanges() {}

  /**
   * Adds a section. One that no device may write, or that holds no whole page, adds nothing.
   *
   * @param iova its first address, unsigned
   * @param bytes its length; the section ends before the end of the space
   * @param writable whether devices may write there
   * @param deviceMemory whether it is the memory of a PCI device of the same container
   */
  public void add(long iova, long bytes, boolean writable, boolean deviceMemory) {
    if (bytes < 0 || bytes > 0 && Long.compareUnsigned(iova + bytes, iova) <= 0) {
      throw new IllegalArgumentException(
          String.format(
              Locale.ROOT, "section at 0x%x, 0x%x bytes: past the end of the space", iova, bytes));
    }
    long start = iova + Pages.SIZE - 1 & -Pages.SIZE;
    long end = iova + bytes & -Pages.SIZE;
    boolean wrapped = Long.compareUnsigned(start, iova) < 0;
    if (!writable || wrapped || Long.compareUnsigned(end, start) <= 0) {
      return;
    }
    long last = end - 1;
    int kind;
    if (deviceMemory && Long.compareUnsigned(start, UINT32_MAX) >= 0) {
      kind = 2;
    } else {
      kind = Long.compareUnsigned(last, UINT32_MAX) <= 0 ? 0 : 1;
    }
    found[kind] = found[kind] == null ? new Range(start, last) : span(found[kind], start, last);
  }

  /**
   * Adds all that a guest may map behind a vIOMMU: where it maps next is not known, and starting
   * anew for each mapping would cost everything each time. One range, as what a guest maps is near
   * no border.
   *
   * @param addressBits how wide an IOVA may be there, 12 to 62: what the vIOMMU tells the guest,
   *     such as 39, 48 or 57, or what the host's IOMMU can take if that is less
   */
  public void addVIommu(int addressBits) {
    add(0, bytesBehindVIommu(addressBits), true, false);
  }

  /**
   * How much a guest may map behind a vIOMMU.
   *
   * @param addressBits as in {@link #addVIommu}
   */
  public static long bytesBehindVIommu(int addressBits) {
    if (addressBits < Pages.SHIFT || addressBits > 62) {
      throw new IllegalArgumentException(
          String.format(
              Locale.ROOT,
              "a vIOMMU with addresses of %d bits: %d to 62 can be asked for",
              addressBits,
              Pages.SHIFT));
    }
    return 1L << addressBits;
  }

  private static Range span(Range range, long start, long last) {
    return new Range(
        Long.compareUnsigned(start, range.iova) < 0 ? start : range.iova,
        Long.compareUnsigned(last, range.last) > 0 ? last : range.last);
  }

  /**
   * A plan with room for what is mapped later: all below 4 GiB, and above it to the next power of
   * two.
   */
  public DeviceRanges widened() {
    DeviceRanges wide = new DeviceRanges();
    if (found[0] != null) {
      wide.found[0] = new Range(0, UINT32_MAX);
    }
    for (int kind = 1; kind < found.length; kind++) {
      Range range = found[kind];
      if (range != null) {
        long last = range.last < 0 ? range.last : -1L >>> Long.numberOfLeadingZeros(range.last);
        wide.found[kind] = new Range(range.iova & -GIB, last | GIB - 1);
      }
    }
    return wide;
  }

  /** As {@link #ranges(int, long)}, of whole pages of the host. */
  public List<Range> ranges(int most) {
    return ranges(most, Pages.SIZE);
  }

  /**
   * The ranges to start a device with: ascending, apart from each other, none empty. Ranges that
   * overlap are joined; so are the nearest ones, until the device can take them.
   *
   * @param most how many the device takes, at least 1
   * @param pageSize bytes that they are to be multiples of, a power of two
   */
  public List<Range> ranges(int most, long pageSize) {
    if (most < 1 || Long.bitCount(pageSize) != 1) {
      throw new IllegalArgumentException(
          "a device that takes " + most + " ranges of pages of " + pageSize + " bytes");
    }
    List<Range> ranges = new ArrayList<>();
    for (Range range : found) {
      if (range != null) {
        ranges.add(new Range(range.iova & -pageSize, range.last | pageSize - 1));
      }
    }
    ranges.sort((a, b) -> Long.compareUnsigned(a.iova, b.iova));
    while (true) {
      int nearest = -1;
      long least = 0;
      for (int i = 0; i + 1 < ranges.size(); i++) {
        Range next = ranges.get(i + 1);
        boolean overlap = Long.compareUnsigned(next.iova, ranges.get(i).last) <= 0;
        long gap = overlap ? 0 : next.iova - ranges.get(i).last;
        if (nearest < 0 || Long.compareUnsigned(gap, least) < 0) {
          nearest = i;
          least = gap;
        }
      }
      if (nearest < 0 || least != 0 && ranges.size() <= most) {
        return List.copyOf(ranges);
      }
      Range next = ranges.remove(nearest + 1);
      ranges.set(nearest, span(ranges.get(nearest), next.iova, next.last));
    }
  }
}
