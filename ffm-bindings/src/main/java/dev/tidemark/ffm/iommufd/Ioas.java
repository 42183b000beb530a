package dev.tidemark.ffm.iommufd;

import static dev.tidemark.ffm.iommufd.IommufdUapi.*;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import dev.tidemark.ffm.Errno;
import dev.tidemark.ffm.Fd;
import dev.tidemark.ffm.Ioctl;
import dev.tidemark.ffm.LinuxException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.StructLayout;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;

/**
 * An IO address space: what devices see at which IO virtual address. Destroying it unmaps
 * everything.
 *
 * <p>Addresses and lengths are bytes and unsigned. Cost: one system call a method, during which
 * other calls on this owner wait; {@link #map}, {@link #mapFixed}, {@link #mapFile} and {@link
 * #unmap} allocate nothing of their own.
 */
public final class Ioas extends IommufdObject {
  private static final Object COPIES = new Object();
  private static final int ACCESS = IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE;

  private static final long MAP$flags = offset(IOMMU_IOAS_MAP_LAYOUT, "flags");
  private static final long MAP$ioas_id = offset(IOMMU_IOAS_MAP_LAYOUT, "ioas_id");
  private static final long MAP$reserved = offset(IOMMU_IOAS_MAP_LAYOUT, "__reserved");
  private static final long MAP$user_va = offset(IOMMU_IOAS_MAP_LAYOUT, "user_va");
  private static final long MAP$length = offset(IOMMU_IOAS_MAP_LAYOUT, "length");
  private static final long MAP$iova = offset(IOMMU_IOAS_MAP_LAYOUT, "iova");

  private static final long MAP_FILE$flags = offset(IOMMU_IOAS_MAP_FILE_LAYOUT, "flags");
  private static final long MAP_FILE$ioas_id = offset(IOMMU_IOAS_MAP_FILE_LAYOUT, "ioas_id");
  private static final long MAP_FILE$fd = offset(IOMMU_IOAS_MAP_FILE_LAYOUT, "fd");
  private static final long MAP_FILE$start = offset(IOMMU_IOAS_MAP_FILE_LAYOUT, "start");
  private static final long MAP_FILE$length = offset(IOMMU_IOAS_MAP_FILE_LAYOUT, "length");
  private static final long MAP_FILE$iova = offset(IOMMU_IOAS_MAP_FILE_LAYOUT, "iova");

  private static final long UNMAP$ioas_id = offset(IOMMU_IOAS_UNMAP_LAYOUT, "ioas_id");
  private static final long UNMAP$iova = offset(IOMMU_IOAS_UNMAP_LAYOUT, "iova");
  private static final long UNMAP$length = offset(IOMMU_IOAS_UNMAP_LAYOUT, "length");

  Ioas(Iommufd iommufd, int id, boolean own) {
    super(iommufd, id, own);
  }

  /**
   * What can be mapped now. Changes whenever a device is attached or detached, or a page table is
   * made or destroyed.
   *
   * @param alignment bytes: mappings start at and are multiples of it, 1 if nothing asks for more
   * @param ranges in ascending order
   */
  public record IovaRanges(long alignment, List<IovaRange> ranges) {}

  @Override
  String kind() {
    return "IOAS";
  }

  /**
   * Maps memory of this process at an address ({@code IOMMU_IOAS_MAP} with {@code
   * IOMMU_IOAS_MAP_FIXED_IOVA}). Pages are pinned as soon as a page table is there; until then
   * nothing is checked.
   *
   * <p>Memory-unsafe: a wrong address, length or lifetime here corrupts memory or ends the JVM.
   * Devices write there whatever it is.
   *
   * @param iova where devices see it
   * @param address where it is mapped here
   * @param length bytes
   * @param access {@code IOMMU_IOAS_MAP_READABLE}, {@code IOMMU_IOAS_MAP_WRITEABLE} or both
   * @throws LinuxException {@code EEXIST} if something is mapped there; {@code EINVAL} for a wrong
   *     alignment or an address that devices cannot use; {@code EFAULT} for memory that is not
   *     there; {@code ENOMEM} beyond {@code RLIMIT_MEMLOCK}
   */
  public void mapFixed(long iova, long address, long length, int access) {
    map(iova, address, length, access, IOMMU_IOAS_MAP_FIXED_IOVA);
  }

  /**
   * Maps memory of this process where there is room.
   *
   * <p>Memory-unsafe: a wrong address, length or lifetime here corrupts memory or ends the JVM.
   * Devices write there whatever it is.
   *
   * @param address where it is mapped here
   * @param length bytes
   * @param access {@code IOMMU_IOAS_MAP_READABLE}, {@code IOMMU_IOAS_MAP_WRITEABLE} or both
   * @return where devices see it, never 0
   * @throws LinuxException {@code ENOSPC} if there is no room; else as {@link #mapFixed}
   */
  public long map(long address, long length, int access) {
    return map(0, address, length, access, 0);
  }

  private synchronized long map(long iova, long address, long length, int access, int fixed) {
    checkAccess(access);
    MemorySegment argument = argument(IOMMU_IOAS_MAP_LAYOUT);
    argument.set(JAVA_INT, MAP$flags, access | fixed);
    argument.set(JAVA_INT, MAP$ioas_id, open());
    argument.set(JAVA_INT, MAP$reserved, 0);
    argument.set(JAVA_LONG, MAP$user_va, address);
    argument.set(JAVA_LONG, MAP$length, length);
    argument.set(JAVA_LONG, MAP$iova, iova);
    int result = call(IOMMU_IOAS_MAP);
    if (result < 0) {
      throw mapFailure(IOMMU_IOAS_MAP, result, iova, length, access, "address", address);
    }
    return argument.get(JAVA_LONG, MAP$iova);
  }

  /**
   * Maps a file's memory at an address ({@code IOMMU_IOAS_MAP_FILE}, Linux 6.13: ask {@link
   * Iommufd#hasMapFile}). Unlike {@link #mapFixed} it survives the process's own mapping.
   *
   * @param iova where devices see it
   * @param file a memfd
   * @param start bytes into the file
   * @param length bytes
   * @param access {@code IOMMU_IOAS_MAP_READABLE}, {@code IOMMU_IOAS_MAP_WRITEABLE} or both
   * @throws LinuxException {@code ENOTTY} on a kernel without it; else as {@link #mapFixed}
   */
  public synchronized void mapFile(long iova, Fd file, long start, long length, int access) {
    checkAccess(access);
    int number = file.acquire();
    try {
      MemorySegment argument = argument(IOMMU_IOAS_MAP_FILE_LAYOUT);
      argument.set(JAVA_INT, MAP_FILE$flags, access | IOMMU_IOAS_MAP_FIXED_IOVA);
      argument.set(JAVA_INT, MAP_FILE$ioas_id, open());
      argument.set(JAVA_INT, MAP_FILE$fd, number);
      argument.set(JAVA_LONG, MAP_FILE$start, start);
      argument.set(JAVA_LONG, MAP_FILE$length, length);
      argument.set(JAVA_LONG, MAP_FILE$iova, iova);
      int result = call(IOMMU_IOAS_MAP_FILE);
      if (result < 0) {
        throw mapFailure(IOMMU_IOAS_MAP_FILE, result, iova, length, access, "offset", start);
      }
    } finally {
      file.release();
    }
  }

  private LinuxException mapFailure(
      Ioctl.Request request,
      int result,
      long iova,
      long length,
      int access,
      String what,
      long from) {
    String advice =
        switch (-result) {
          case Errno.ENOMEM -> "; raise RLIMIT_MEMLOCK (ulimit -l) if the memory is to be pinned";
          case Errno.EEXIST -> "; unmap first what is mapped there";
          default -> "";
        };
    return Ioctl.failure(
        iommufd.fd(),
        request,
        -result,
        String.format(
            Locale.ROOT,
            "IOAS %d, IOVA 0x%x, %d bytes of %s 0x%x, access %d%s",
            open(),
            iova,
            length,
            what,
            from,
            access,
            advice));
  }

  /**
   * Unmaps whole mappings ({@code IOMMU_IOAS_UNMAP}). What page tables knew to be dirty there is
   * forgotten.
   *
   * @param iova the first address
   * @param length bytes; a mapping that is only partly inside is an error
   * @return bytes that were mapped
   * @throws LinuxException {@code ENOENT} if nothing is mapped there or a mapping would be split;
   *     after any error the mappings in front of the trouble may be gone
   */
  public synchronized long unmap(long iova, long length) {
    MemorySegment argument = argument(IOMMU_IOAS_UNMAP_LAYOUT);
    argument.set(JAVA_INT, UNMAP$ioas_id, open());
    argument.set(JAVA_LONG, UNMAP$iova, iova);
    argument.set(JAVA_LONG, UNMAP$length, length);
    int result = call(IOMMU_IOAS_UNMAP);
    if (result < 0) {
      throw Ioctl.failure(
          iommufd.fd(),
          IOMMU_IOAS_UNMAP,
          -result,
          String.format(Locale.ROOT, "IOAS %d, IOVA 0x%x, 0x%x bytes", open(), iova, length));
    }
    return argument.get(JAVA_LONG, UNMAP$length);
  }

  /**
   * Unmaps everything, also nothing.
   *
   * @return bytes that were mapped
   * @throws LinuxException if the kernel refuses; part may be unmapped then
   */
  public long unmapAll() {
    return unmap(0, -1);
  }

  /**
   * Maps again what is mapped in another address space, or elsewhere in this one ({@code
   * IOMMU_IOAS_COPY}); the pages are pinned and charged once.
   *
   * @param iova where devices see it
   * @param source of the same iommufd
   * @param sourceIova where it is mapped there
   * @param length bytes, mapped there without a hole
   * @param access {@code IOMMU_IOAS_MAP_READABLE}, {@code IOMMU_IOAS_MAP_WRITEABLE} or both
   * @throws LinuxException {@code ENOENT} for a hole in the source; {@code EPERM} for write access
   *     to what is mapped without; else as {@link #mapFixed}
   */
  public void copyFixed(long iova, Ioas source, long sourceIova, long length, int access) {
    checkAccess(access);
    // Two copies in opposite directions would wait for each other's monitor for ever.
    synchronized (COPIES) {
      source.lend(id -> copy(iova, id, sourceIova, length, access));
    }
  }

  private synchronized int copy(long iova, int source, long sourceIova, long length, int access) {
    StructLayout layout = IOMMU_IOAS_COPY_LAYOUT;
    MemorySegment argument = argument(layout);
    argument.set(JAVA_INT, offset(layout, "flags"), access | IOMMU_IOAS_MAP_FIXED_IOVA);
    argument.set(JAVA_INT, offset(layout, "dst_ioas_id"), open());
    argument.set(JAVA_INT, offset(layout, "src_ioas_id"), source);
    argument.set(JAVA_LONG, offset(layout, "length"), length);
    argument.set(JAVA_LONG, offset(layout, "dst_iova"), iova);
    argument.set(JAVA_LONG, offset(layout, "src_iova"), sourceIova);
    int result = call(IOMMU_IOAS_COPY);
    if (result < 0) {
      throw mapFailure(
          IOMMU_IOAS_COPY, result, iova, length, access, "IOAS " + source + " at", sourceIova);
    }
    return result;
  }

  /**
   * What can be mapped now ({@code IOMMU_IOAS_IOVA_RANGES}).
   *
   * @throws LinuxException if the kernel refuses
   */
  public synchronized IovaRanges iovaRanges() {
    StructLayout layout = IOMMU_IOAS_IOVA_RANGES_LAYOUT;
    long stride = IOMMU_IOVA_RANGE_LAYOUT.byteSize();
    int room = 16;
    while (true) {
      try (Arena arena = Arena.ofConfined()) {
        MemorySegment array = arena.allocate(IOMMU_IOVA_RANGE_LAYOUT, room);
        MemorySegment argument = argument(layout);
        argument.set(JAVA_INT, offset(layout, "ioas_id"), open());
        argument.set(JAVA_INT, offset(layout, "num_iovas"), room);
        argument.set(JAVA_INT, offset(layout, "__reserved"), 0);
        argument.set(JAVA_LONG, offset(layout, "allowed_iovas"), array.address());
        int result = call(IOMMU_IOAS_IOVA_RANGES);
        int count = argument.get(JAVA_INT, offset(layout, "num_iovas"));
        if (result == -Errno.EMSGSIZE && count > room) {
          room = count;
          continue;
        }
        if (result < 0) {
          throw Ioctl.failure(iommufd.fd(), IOMMU_IOAS_IOVA_RANGES, -result, "IOAS " + open());
        }
        List<IovaRange> ranges = new ArrayList<>(count);
        for (int i = 0; i < count; i++) {
          ranges.add(
              new IovaRange(
                  array.get(JAVA_LONG, i * stride), array.get(JAVA_LONG, i * stride + 8)));
        }
        return new IovaRanges(
            argument.get(JAVA_LONG, offset(layout, "out_iova_alignment")), List.copyOf(ranges));
      }
    }
  }

  /**
   * Says which addresses must stay usable ({@code IOMMU_IOAS_ALLOW_IOVAS}): a device that would
   * reserve some of them cannot be attached, and {@link #map} goes nowhere else.
   *
   * @param ranges instead of those said before; none takes all restrictions away
   * @throws LinuxException {@code EADDRINUSE} if some are reserved already; {@code EINVAL} if they
   *     overlap
   */
  public synchronized void allowIovas(List<IovaRange> ranges) {
    StructLayout layout = IOMMU_IOAS_ALLOW_IOVAS_LAYOUT;
    long stride = IOMMU_IOVA_RANGE_LAYOUT.byteSize();
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment array = arena.allocate(IOMMU_IOVA_RANGE_LAYOUT, Math.max(1, ranges.size()));
      for (int i = 0; i < ranges.size(); i++) {
        array.set(JAVA_LONG, i * stride, ranges.get(i).start());
        array.set(JAVA_LONG, i * stride + 8, ranges.get(i).last());
      }
      MemorySegment argument = argument(layout);
      argument.set(JAVA_INT, offset(layout, "ioas_id"), open());
      argument.set(JAVA_INT, offset(layout, "num_iovas"), ranges.size());
      argument.set(JAVA_INT, offset(layout, "__reserved"), 0);
      argument.set(JAVA_LONG, offset(layout, "allowed_iovas"), array.address());
      int result = call(IOMMU_IOAS_ALLOW_IOVAS);
      if (result < 0) {
        throw Ioctl.failure(
            iommufd.fd(), IOMMU_IOAS_ALLOW_IOVAS, -result, "IOAS " + open() + ", " + ranges);
      }
    }
  }

  /** Whether page tables may use entries larger than a page ({@code IOMMU_OPTION_HUGE_PAGES}). */
  public synchronized boolean getHugePages() {
    return iommufd.option(IOMMU_OPTION_HUGE_PAGES, IOMMU_OPTION_OP_GET, open(), 0) != 0;
  }

  /**
   * Allows or forbids entries larger than a page; without them a dirty bit stands for one page.
   *
   * @param allowed true at first
   * @throws LinuxException {@code EINVAL} if something is mapped in a page table already; {@code
   *     EADDRINUSE} if a mapping is not aligned to pages
   */
  public synchronized void setHugePages(boolean allowed) {
    iommufd.option(IOMMU_OPTION_HUGE_PAGES, IOMMU_OPTION_OP_SET, open(), allowed ? 1 : 0);
  }

  private static void checkAccess(int access) {
    if ((access & ~ACCESS) != 0) {
      throw new IllegalArgumentException(
          "access " + access + " is not READABLE, WRITEABLE or both");
    }
  }

  private MemorySegment argument(StructLayout layout) {
    argument.set(JAVA_INT, 0, (int) layout.byteSize());
    return argument;
  }

  private int call(Ioctl.Request request) {
    int result;
    do {
      result = Ioctl.tryCall(iommufd.fd(), request, argument);
    } while (result == -Errno.EINTR);
    return result;
  }
}
