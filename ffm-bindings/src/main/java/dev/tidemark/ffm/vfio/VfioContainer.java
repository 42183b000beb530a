package dev.tidemark.ffm.vfio;

import static dev.tidemark.ffm.vfio.VfioUapi.*;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import dev.tidemark.ffm.Errno;
import dev.tidemark.ffm.Fd;
import dev.tidemark.ffm.Ioctl;
import dev.tidemark.ffm.LinuxException;
import dev.tidemark.ffm.internal.NativeMemory;
import dev.tidemark.ffm.iommufd.IovaRange;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.StructLayout;
import java.lang.ref.Reference;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalLong;

/**
 * An owner of a VFIO container with a type1 IOMMU: one address space for the devices of its groups,
 * and which of its pages they may have written. A group whose driver does not pin pages counts as
 * having written all that is mapped, each time.
 *
 * <p>Threading: any thread; calls on one owner run one after the other, as in the kernel. Cost: one
 * system call a method; mapping, unmapping and {@link #getDirtyBitmap} allocate nothing of their
 * own.
 */
public final class VfioContainer implements AutoCloseable {
  private static final String PATH = "/dev/vfio/vfio";
  private static final int ARGSZ = 0;
  private static final int FLAGS = 4;
  private static final int MOST_INFO_BYTES = 1 << 20;

  private static final StructLayout INFO = VFIO_IOMMU_TYPE1_INFO_LAYOUT;

  private static final long MAP_BYTES = VFIO_IOMMU_TYPE1_DMA_MAP_LAYOUT.byteSize();
  private static final long MAP$vaddr = offset(VFIO_IOMMU_TYPE1_DMA_MAP_LAYOUT, "vaddr");
  private static final long MAP$iova = offset(VFIO_IOMMU_TYPE1_DMA_MAP_LAYOUT, "iova");
  private static final long MAP$size = offset(VFIO_IOMMU_TYPE1_DMA_MAP_LAYOUT, "size");

  private static final long UNMAP_BYTES = VFIO_IOMMU_TYPE1_DMA_UNMAP_LAYOUT.byteSize();
  private static final long UNMAP$iova = offset(VFIO_IOMMU_TYPE1_DMA_UNMAP_LAYOUT, "iova");
  private static final long UNMAP$size = offset(VFIO_IOMMU_TYPE1_DMA_UNMAP_LAYOUT, "size");

  private static final long DIRTY_BYTES = VFIO_IOMMU_TYPE1_DIRTY_BITMAP_LAYOUT.byteSize();
  private static final long DIRTY$iova =
      DIRTY_BYTES + offset(VFIO_IOMMU_TYPE1_DIRTY_BITMAP_GET_LAYOUT, "iova");
  private static final long DIRTY$size =
      DIRTY_BYTES + offset(VFIO_IOMMU_TYPE1_DIRTY_BITMAP_GET_LAYOUT, "size");
  private static final long DIRTY$bitmap =
      DIRTY_BYTES + offset(VFIO_IOMMU_TYPE1_DIRTY_BITMAP_GET_LAYOUT, "bitmap");
  private static final long DIRTY_GET_BYTES =
      DIRTY_BYTES + VFIO_IOMMU_TYPE1_DIRTY_BITMAP_GET_LAYOUT.byteSize();

  private static final long BITMAP_BYTES = VFIO_BITMAP_LAYOUT.byteSize();
  private static final long BITMAP$pgsize = offset(VFIO_BITMAP_LAYOUT, "pgsize");
  private static final long BITMAP$size = offset(VFIO_BITMAP_LAYOUT, "size");
  private static final long BITMAP$data = offset(VFIO_BITMAP_LAYOUT, "data");

  private final Fd fd;

  /** The argument of the hot calls, guarded by itself. */
  private final MemorySegment argument = Arena.ofAuto().allocate(DIRTY_GET_BYTES, 8);

  private VfioContainer(Fd fd) {
    this.fd = fd;
  }

  /**
   * What a container can do ({@code struct vfio_iommu_type1_info} and its capabilities).
   *
   * @param pageSizes bit n: pages of 2<sup>n</sup> bytes can be mapped
   * @param ranges what can be mapped, ascending; empty if the kernel does not say
   * @param migration dirty tracking; empty if there is none
   * @param mappingsLeft how many mappings can still be made; empty if the kernel does not say
   */
  public record Info(
      long pageSizes,
      List<IovaRange> ranges,
      Optional<Migration> migration,
      OptionalLong mappingsLeft) {}

  /**
   * A container's dirty tracking.
   *
   * @param pageSizes bit n: a bit of a bitmap can stand for 2<sup>n</sup> bytes; the smallest works
   * @param maxDirtyBitmapSize the largest bitmap that the kernel takes, in bytes
   */
  public record Migration(long pageSizes, long maxDirtyBitmapSize) {
    /** Bytes of the page that queries must use. */
    public long pageSize() {
      return Long.lowestOneBit(pageSizes);
    }
  }

  /**
   * Opens {@code /dev/vfio/vfio}.
   *
   * @throws LinuxException {@code ENOENT} on a kernel without VFIO containers
   */
  public static VfioContainer open() {
    return new VfioContainer(Fd.open(PATH, Fd.O_RDWR));
  }

  /**
   * Uses a container that is already open, or an iommufd that offers one (which cannot track dirty
   * pages); {@link #close()} leaves it open.
   *
   * @param number its descriptor
   */
  public static VfioContainer borrow(int number) {
    return new VfioContainer(Fd.borrow(number, "VFIO container"));
  }

  /** The descriptor, for calls that are not bound here. */
  public Fd fd() {
    return fd;
  }

  /** The version of VFIO, always {@link VfioUapi#VFIO_API_VERSION} so far. */
  public int apiVersion() {
    return Ioctl.call(fd, VFIO_GET_API_VERSION, 0);
  }

  /**
   * Whether the container can do something ({@code VFIO_CHECK_EXTENSION}).
   *
   * @param extension such as {@link VfioUapi#VFIO_TYPE1v2_IOMMU}
   */
  public boolean checkExtension(int extension) {
    return Ioctl.call(fd, VFIO_CHECK_EXTENSION, extension) > 0;
  }

  /**
   * Chooses the IOMMU ({@code VFIO_SET_IOMMU}), once a group is in the container.
   *
   * @param type {@link VfioUapi#VFIO_TYPE1v2_IOMMU}; the older type1 cannot track dirty pages
   * @throws LinuxException {@code EINVAL} without a group or with an IOMMU set
   */
  public void setIommu(int type) {
    int result = Ioctl.tryCall(fd, VFIO_SET_IOMMU, type);
    if (result < 0) {
      throw Ioctl.failure(
          fd,
          VFIO_SET_IOMMU,
          -result,
          "type "
              + type
              + (result == -Errno.EINVAL ? ": put a group into the container first" : ""));
    }
  }

  /**
   * What the container can do ({@code VFIO_IOMMU_GET_INFO}).
   *
   * @throws LinuxException if no IOMMU is set
   * @throws IllegalStateException if the kernel's answer makes no sense
   */
  public Info info() {
    int bytes = (int) INFO.byteSize();
    while (true) {
      try (Arena arena = Arena.ofConfined()) {
        MemorySegment info = arena.allocate(bytes, 8);
        info.set(JAVA_INT, ARGSZ, bytes);
        Ioctl.call(fd, VFIO_IOMMU_GET_INFO, info);
        int needed = info.get(JAVA_INT, ARGSZ);
        if (needed > MOST_INFO_BYTES) {
          throw new IllegalStateException("VFIO_IOMMU_GET_INFO wants " + needed + " bytes");
        }
        if (needed <= bytes) {
          return info(info);
        }
        // The chain can grow meanwhile; its next length is asked for as the first was.
        bytes = needed;
      }
    }
  }

  /** What an answer of {@code VFIO_IOMMU_GET_INFO} says. */
  static Info info(MemorySegment info) {
    int flags = info.get(JAVA_INT, FLAGS);
    long first =
        (flags & VFIO_IOMMU_INFO_CAPS) == 0
            ? 0
            : Integer.toUnsignedLong(info.get(JAVA_INT, offset(INFO, "cap_offset")));
    Map<Integer, MemorySegment> found = InfoCapabilities.parse(info, INFO.byteSize(), first);
    MemorySegment ranges =
        capability(
            found,
            VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE,
            VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE_LAYOUT);
    MemorySegment migration =
        capability(
            found, VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION, VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION_LAYOUT);
    MemorySegment left =
        capability(found, VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL, VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL_LAYOUT);
    return new Info(
        (flags & VFIO_IOMMU_INFO_PGSIZES) == 0
            ? 0
            : info.get(JAVA_LONG, offset(INFO, "iova_pgsizes")),
        ranges == null ? List.of() : ranges(ranges),
        migration == null ? Optional.empty() : Optional.of(migration(migration)),
        left == null
            ? OptionalLong.empty()
            : OptionalLong.of(
                Integer.toUnsignedLong(
                    left.get(JAVA_INT, offset(VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL_LAYOUT, "avail")))));
  }

  private static MemorySegment capability(
      Map<Integer, MemorySegment> found, int id, StructLayout layout) {
    MemorySegment capability = found.get(id);
    if (capability != null && capability.byteSize() < layout.byteSize()) {
      throw new IllegalStateException("capability " + id + " is cut off");
    }
    return capability;
  }

  private static List<IovaRange> ranges(MemorySegment capability) {
    StructLayout layout = VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE_LAYOUT;
    long stride = VFIO_IOVA_RANGE_LAYOUT.byteSize();
    long count = Integer.toUnsignedLong(capability.get(JAVA_INT, offset(layout, "nr_iovas")));
    if (count > (capability.byteSize() - layout.byteSize()) / stride) {
      throw new IllegalStateException("IOVA ranges are cut off: " + count);
    }
    List<IovaRange> ranges = new ArrayList<>();
    for (long i = 0; i < count; i++) {
      long at = layout.byteSize() + i * stride;
      // The end is the last address in it, unlike the name says.
      ranges.add(new IovaRange(capability.get(JAVA_LONG, at), capability.get(JAVA_LONG, at + 8)));
    }
    return List.copyOf(ranges);
  }

  private static Migration migration(MemorySegment capability) {
    StructLayout layout = VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION_LAYOUT;
    Migration migration =
        new Migration(
            capability.get(JAVA_LONG, offset(layout, "pgsize_bitmap")),
            capability.get(JAVA_LONG, offset(layout, "max_dirty_bitmap_size")));
    if (migration.pageSizes == 0) {
      throw new IllegalStateException("dirty tracking without a page size");
    }
    return migration;
  }

  /**
   * Maps memory of this process ({@code VFIO_IOMMU_MAP_DMA}).
   *
   * <p>Memory-unsafe: a wrong address, length or lifetime here corrupts memory or ends the JVM.
   * Devices write there whatever it is.
   *
   * @param iova where devices see it
   * @param address where it is mapped here
   * @param size bytes, whole pages
   * @param access {@code VFIO_DMA_MAP_FLAG_READ}, {@code VFIO_DMA_MAP_FLAG_WRITE} or both
   * @throws LinuxException {@code EEXIST} if something is mapped there; {@code EINVAL} for a wrong
   *     alignment or an address that devices cannot use; {@code ENOSPC} for too many mappings;
   *     {@code ENOMEM} beyond {@code RLIMIT_MEMLOCK}; {@code EFAULT}
   */
  public void mapDma(long iova, long address, long size, int access) {
    if ((access & ~(VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE)) != 0) {
      throw new IllegalArgumentException("access " + access + " is not READ, WRITE or both");
    }
    synchronized (argument) {
      argument.set(JAVA_INT, ARGSZ, (int) MAP_BYTES);
      argument.set(JAVA_INT, FLAGS, access);
      argument.set(JAVA_LONG, MAP$vaddr, address);
      argument.set(JAVA_LONG, MAP$iova, iova);
      argument.set(JAVA_LONG, MAP$size, size);
      int result = call(VFIO_IOMMU_MAP_DMA);
      if (result < 0) {
        throw Ioctl.failure(
            fd,
            VFIO_IOMMU_MAP_DMA,
            -result,
            String.format(
                Locale.ROOT,
                "IOVA 0x%x, %d bytes of address 0x%x, access %d%s",
                iova,
                size,
                address,
                access,
                mapAdvice(-result)));
      }
    }
  }

  /**
   * Unmaps whole mappings ({@code VFIO_IOMMU_UNMAP_DMA}).
   *
   * @param iova the first address
   * @param size bytes
   * @return bytes that were mapped, 0 if nothing was
   * @throws LinuxException {@code EINVAL} if a mapping would be split
   */
  public long unmapDma(long iova, long size) {
    return unmap(0, iova, size, UNMAP_BYTES);
  }

  /**
   * Unmaps everything ({@code VFIO_DMA_UNMAP_FLAG_ALL}); what was dirty is forgotten.
   *
   * @return bytes that were mapped
   * @throws LinuxException {@code EINVAL} where {@link VfioUapi#VFIO_UNMAP_ALL} is missing
   */
  public long unmapAll() {
    return unmap(VFIO_DMA_UNMAP_FLAG_ALL, 0, 0, UNMAP_BYTES);
  }

  /**
   * Unmaps whole mappings and tells which of their pages are dirty, in one step ({@code
   * VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP}). Tracking must be on.
   *
   * @param iova the first address
   * @param size bytes
   * @param pageSize the smallest of {@link Migration}'s
   * @param bitmap native memory, as for {@link #getDirtyBitmap}
   * @return bytes that were mapped, 0 if nothing was
   * @throws IllegalArgumentException if the bitmap is too small
   * @throws LinuxException {@code EINVAL} if a mapping would be split, tracking is off, or the
   *     bitmap is larger than the kernel takes; {@code EFAULT}. The mappings are still there then
   */
  public long unmapDma(long iova, long size, long pageSize, MemorySegment bitmap) {
    synchronized (argument) {
      setBitmap(UNMAP_BYTES, size, pageSize, bitmap);
      try {
        return unmap(VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP, iova, size, UNMAP_BYTES + BITMAP_BYTES);
      } finally {
        Reference.reachabilityFence(bitmap);
      }
    }
  }

  private long unmap(int flags, long iova, long size, long bytes) {
    synchronized (argument) {
      argument.set(JAVA_INT, ARGSZ, (int) bytes);
      argument.set(JAVA_INT, FLAGS, flags);
      argument.set(JAVA_LONG, UNMAP$iova, iova);
      argument.set(JAVA_LONG, UNMAP$size, size);
      int result = call(VFIO_IOMMU_UNMAP_DMA);
      if (result < 0) {
        throw Ioctl.failure(
            fd,
            VFIO_IOMMU_UNMAP_DMA,
            -result,
            String.format(
                Locale.ROOT,
                "IOVA 0x%x, %d bytes, flags %d%s",
                iova,
                size,
                flags,
                result == -Errno.EINVAL
                    ? ": unmap whole mappings; with a bitmap, tracking must be on"
                    : ""));
      }
      return argument.get(JAVA_LONG, UNMAP$size);
    }
  }

  /**
   * Switches tracking on or off ({@code VFIO_IOMMU_DIRTY_PAGES}); again is no error.
   *
   * @throws LinuxException {@code EACCES} with the older type1; {@code ENOTTY} if the container is
   *     an iommufd
   */
  public void setDirtyTracking(boolean on) {
    synchronized (argument) {
      argument.set(JAVA_INT, ARGSZ, (int) DIRTY_BYTES);
      argument.set(
          JAVA_INT,
          FLAGS,
          on ? VFIO_IOMMU_DIRTY_PAGES_FLAG_START : VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP);
      int result = call(VFIO_IOMMU_DIRTY_PAGES);
      if (result < 0) {
        throw Ioctl.failure(
            fd, VFIO_IOMMU_DIRTY_PAGES, -result, (on ? "start" : "stop") + trackAdvice(-result));
      }
    }
  }

  /**
   * Takes the dirty pages of a range, and clears them in the container ({@code
   * VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP}).
   *
   * <p>The kernel overwrites the 64-bit words that mappings cover, up to the end of a mapping's
   * last word; words over a hole stay as they were. So the bitmap must be zero before, and cannot
   * collect.
   *
   * @param iova the first address, at a mapping's start
   * @param size bytes, to a mapping's end
   * @param pageSize the smallest of {@link Migration}'s
   * @param bitmap native memory of whole 64-bit words, alive until the call returns; bit n is the
   *     page at {@code iova + n * pageSize}
   * @throws IllegalArgumentException if the page size is no power of two or the bitmap too small
   * @throws LinuxException {@code EINVAL} if tracking is off, the page size is not the smallest,
   *     the range not aligned to it or would split a mapping, or the bitmap is larger than the
   *     kernel takes; {@code EFAULT}. All of the range counts as dirty then
   */
  public void getDirtyBitmap(long iova, long size, long pageSize, MemorySegment bitmap) {
    synchronized (argument) {
      argument.set(JAVA_INT, ARGSZ, (int) DIRTY_GET_BYTES);
      argument.set(JAVA_INT, FLAGS, VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP);
      argument.set(JAVA_LONG, DIRTY$iova, iova);
      argument.set(JAVA_LONG, DIRTY$size, size);
      setBitmap(DIRTY$bitmap, size, pageSize, bitmap);
      int result;
      try {
        result = call(VFIO_IOMMU_DIRTY_PAGES);
      } finally {
        Reference.reachabilityFence(bitmap);
      }
      if (result < 0) {
        throw Ioctl.failure(
            fd,
            VFIO_IOMMU_DIRTY_PAGES,
            -result,
            String.format(
                Locale.ROOT,
                "get, IOVA 0x%x, %d bytes, pages of %d, all of which counts as dirty%s",
                iova,
                size,
                pageSize,
                trackAdvice(-result)));
      }
    }
  }

  private static String mapAdvice(int errno) {
    return switch (errno) {
      case Errno.EEXIST -> ": unmap what is mapped there first";
      case Errno.EINVAL -> ": map whole pages where devices can reach them, see info()";
      case Errno.ENOSPC -> ": fewer mappings, see info()";
      case Errno.ENOMEM -> ": raise the limit of locked memory (ulimit -l)";
      default -> "";
    };
  }

  private static String trackAdvice(int errno) {
    return switch (errno) {
      case Errno.ENOTTY -> ": an iommufd that plays container cannot track";
      case Errno.EACCES -> ": only VFIO_TYPE1v2_IOMMU can track";
      case Errno.EINVAL -> ": ask with tracking on, for whole mappings, in info()'s page size";
      default -> "";
    };
  }

  private void setBitmap(long at, long size, long pageSize, MemorySegment bitmap) {
    if (pageSize <= 0 || Long.bitCount(pageSize) != 1) {
      throw new IllegalArgumentException("a page of " + pageSize + " bytes");
    }
    long bits = size >>> Long.numberOfTrailingZeros(pageSize);
    long bytes = bits + 63 >>> 6 << 3;
    long address = NativeMemory.toWrite(bitmap, 0, bytes);
    argument.set(JAVA_LONG, at + BITMAP$pgsize, pageSize);
    argument.set(JAVA_LONG, at + BITMAP$size, bytes);
    argument.set(JAVA_LONG, at + BITMAP$data, address);
  }

  private int call(Ioctl.Request request) {
    int result;
    do {
      result = Ioctl.tryCall(fd, request, argument);
    } while (result == -Errno.EINTR);
    return result;
  }

  @Override
  public void close() {
    fd.close();
  }

  @Override
  public String toString() {
    return fd.toString();
  }
}
