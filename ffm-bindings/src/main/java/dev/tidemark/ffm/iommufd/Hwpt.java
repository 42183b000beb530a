package dev.tidemark.ffm.iommufd;

import static dev.tidemark.ffm.iommufd.IommufdUapi.*;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import dev.tidemark.ffm.Errno;
import dev.tidemark.ffm.Ioctl;
import dev.tidemark.ffm.LinuxException;
import dev.tidemark.ffm.internal.NativeMemory;
import java.lang.foreign.MemorySegment;
import java.lang.ref.Reference;
import java.util.Locale;

/**
 * A hardware page table: what the IOMMU walks for the devices attached to it, made from an {@link
 * Ioas}. One made with {@link IommufdUapi#IOMMU_HWPT_ALLOC_DIRTY_TRACKING} tells which pages these
 * devices wrote.
 *
 * <p>Cost: one system call a method, during which other calls on this owner wait; none allocates.
 */
public final class Hwpt extends IommufdObject {
  private static final long SET$flags = offset(IOMMU_HWPT_SET_DIRTY_TRACKING_LAYOUT, "flags");
  private static final long SET$hwpt_id = offset(IOMMU_HWPT_SET_DIRTY_TRACKING_LAYOUT, "hwpt_id");
  private static final long SET$reserved =
      offset(IOMMU_HWPT_SET_DIRTY_TRACKING_LAYOUT, "__reserved");

  private static final long GET$hwpt_id = offset(IOMMU_HWPT_GET_DIRTY_BITMAP_LAYOUT, "hwpt_id");
  private static final long GET$flags = offset(IOMMU_HWPT_GET_DIRTY_BITMAP_LAYOUT, "flags");
  private static final long GET$reserved = offset(IOMMU_HWPT_GET_DIRTY_BITMAP_LAYOUT, "__reserved");
  private static final long GET$iova = offset(IOMMU_HWPT_GET_DIRTY_BITMAP_LAYOUT, "iova");
  private static final long GET$length = offset(IOMMU_HWPT_GET_DIRTY_BITMAP_LAYOUT, "length");
  private static final long GET$page_size = offset(IOMMU_HWPT_GET_DIRTY_BITMAP_LAYOUT, "page_size");
  private static final long GET$data = offset(IOMMU_HWPT_GET_DIRTY_BITMAP_LAYOUT, "data");

  Hwpt(Iommufd iommufd, int id, boolean own) {
    super(iommufd, id, own);
  }

  @Override
  String kind() {
    return "HWPT";
  }

  /**
   * Switches tracking on or off ({@code IOMMU_HWPT_SET_DIRTY_TRACKING}). On clears all dirty bits
   * first, also when it was on already.
   *
   * @throws LinuxException {@code EOPNOTSUPP} if this page table was made without dirty tracking;
   *     {@code ENOENT} if a borrowed one is gone
   */
  public synchronized void setDirtyTracking(boolean on) {
    argument.set(JAVA_INT, 0, (int) IOMMU_HWPT_SET_DIRTY_TRACKING_LAYOUT.byteSize());
    argument.set(JAVA_INT, SET$flags, on ? IOMMU_HWPT_DIRTY_TRACKING_ENABLE : 0);
    argument.set(JAVA_INT, SET$hwpt_id, open());
    argument.set(JAVA_INT, SET$reserved, 0);
    int result = call(IOMMU_HWPT_SET_DIRTY_TRACKING);
    if (result < 0) {
      throw Ioctl.failure(
          iommufd.fd(),
          IOMMU_HWPT_SET_DIRTY_TRACKING,
          -result,
          "HWPT " + open() + (on ? ", on" : ", off"));
    }
  }

  /**
   * ORs the dirty pages of a range into a bitmap, and clears them in the page table ({@code
   * IOMMU_HWPT_GET_DIRTY_BITMAP}).
   *
   * <p>Memory-unsafe: a wrong address, length or lifetime here corrupts memory or ends the JVM.
   *
   * <p>The kernel checks less than it seems (linux-6.12). It returns 0 and leaves bits out when
   * tracking is off and from the first hole in the range on; it returns 0 and the bits are gone
   * when it cannot write the bitmap. A range that starts or ends inside an entry of the page table
   * loses bits at its start and has bits set past the end of the bitmap. It changes whole 64-bit
   * words without locking, so nobody else may write these words meanwhile.
   *
   * @param iova the first address, at a mapping's start
   * @param length bytes, to a mapping's end without a hole
   * @param pageSize bytes that a bit stands for, a power of two
   * @param flags 0 or {@link IommufdUapi#IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR}
   * @param bitmap native memory, alive until the call returns, touched in advance; bit n is the
   *     page at {@code iova + n * pageSize}, byte n / 8
   * @throws IllegalArgumentException if the page size is no power of two or the bitmap too small
   * @throws LinuxException {@code EINVAL} if the range is not aligned to pages or to the address
   *     space's alignment; {@code EOPNOTSUPP} if this page table was made without dirty tracking;
   *     {@code ENOENT} if a borrowed one is gone; {@code ENOMEM}. After none of these bits are lost
   */
  public void getDirtyBitmap(
      long iova, long length, long pageSize, int flags, MemorySegment bitmap) {
    getDirtyBitmap(iova, length, pageSize, flags, bitmap, 0);
  }

  /**
   * As {@link #getDirtyBitmap(long, long, long, int, MemorySegment)}, into the middle of a bitmap.
   *
   * @param offset bytes into the bitmap, where bit 0 goes; any, also one that splits a word
   */
  public synchronized void getDirtyBitmap(
      long iova, long length, long pageSize, int flags, MemorySegment bitmap, long offset) {
    if (pageSize <= 0 || Long.bitCount(pageSize) != 1) {
      throw new IllegalArgumentException("a page of " + pageSize + " bytes");
    }
    long bits = length >>> Long.numberOfTrailingZeros(pageSize);
    long address = NativeMemory.toWrite(bitmap, offset, bits + 7 >>> 3);
    argument.set(JAVA_INT, 0, (int) IOMMU_HWPT_GET_DIRTY_BITMAP_LAYOUT.byteSize());
    argument.set(JAVA_INT, GET$hwpt_id, open());
    argument.set(JAVA_INT, GET$flags, flags);
    argument.set(JAVA_INT, GET$reserved, 0);
    argument.set(JAVA_LONG, GET$iova, iova);
    argument.set(JAVA_LONG, GET$length, length);
    argument.set(JAVA_LONG, GET$page_size, pageSize);
    argument.set(JAVA_LONG, GET$data, address);
    int result;
    try {
      result = call(IOMMU_HWPT_GET_DIRTY_BITMAP);
    } finally {
      Reference.reachabilityFence(bitmap);
    }
    if (result < 0) {
      throw Ioctl.failure(
          iommufd.fd(),
          IOMMU_HWPT_GET_DIRTY_BITMAP,
          -result,
          String.format(
              Locale.ROOT,
              "HWPT %d, IOVA 0x%x, %d bytes, pages of %d, flags %d",
              open(),
              iova,
              length,
              pageSize,
              flags));
    }
  }

  private int call(Ioctl.Request request) {
    int result;
    do {
      result = Ioctl.tryCall(iommufd.fd(), request, argument);
    } while (result == -Errno.EINTR);
    return result;
  }
}
