package dev.tidemark.ffm;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;

import dev.tidemark.ffm.internal.Libc;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.foreign.MemorySegment;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Locale;

/**
 * Which pages of a shared file mapping have no memory: a load from such a hole gives zero, and
 * makes the kernel allocate the page. Holes are known for files that answer {@code SEEK_DATA}, such
 * as a memfd or a file on tmpfs, ext4 or XFS; hugetlbfs does not, all of such a file counts as
 * data.
 *
 * <p>Threading: any, but the calls move the descriptor's file position. Cost: no allocation on the
 * Java heap.
 */
public final class FileHoles {
  private static final int SEEK_END = 2;
  private static final int SEEK_DATA = 3;

  private final Fd fd;
  private final long offset;
  private final MemorySegment memory;

  private FileHoles(Fd fd, long offset, MemorySegment memory) {
    this.fd = fd;
    this.offset = offset;
    this.memory = memory;
  }

  /**
   * Checks that the file is the one that is mapped there.
   *
   * @param memory the mapping, or a part of it, whole pages
   * @param fd the file's descriptor; borrowed, open as long as this is in use
   * @param offset where in the file the memory begins, in bytes
   * @throws IllegalArgumentException if any of the memory is not a shared mapping of that file and
   *     offset: the file's holes would say nothing about it. Files of file systems that name their
   *     device in another way in {@code /proc/self/maps} (btrfs, overlayfs) are refused, too
   * @throws UncheckedIOException if {@code /proc} is not there
   */
  public static FileHoles of(MemorySegment memory, Fd fd, long offset) {
    long inode = attribute(fd, "ino");
    long device = attribute(fd, "dev");
    long start = memory.address();
    long end = start + memory.byteSize();
    long at = start;
    List<MappedRegion> regions = MappedRegion.in(start, end);
    for (MappedRegion region : regions) {
      if (region.start() > at
          || !region.shared()
          || region.inode() != inode
          || region.device() != device
          || region.offset() - offset != region.start() - start) {
        break;
      }
      at = region.end();
    }
    if (at < end) {
      throw new IllegalArgumentException(
          String.format(
              Locale.ROOT,
              "the memory at 0x%x is not a shared mapping of %s at offset %d: its holes say nothing about it",
              at,
              fd,
              offset + (at - start)));
    }
    return new FileHoles(fd, offset, memory);
  }

  private static long attribute(Fd fd, String name) {
    int number = fd.acquire();
    try {
      return ((Number) Files.getAttribute(Path.of("/proc/self/fd/" + number), "unix:" + name))
          .longValue();
    } catch (IOException e) {
      throw new UncheckedIOException("cannot read /proc/self/fd: is /proc mounted?", e);
    } finally {
      fd.release();
    }
  }

  /**
   * Where the hole ends that a byte is in. Memory past the end of the file is no hole: it cannot be
   * read.
   *
   * @param at bytes into the memory
   * @return {@code at} if the byte is data or this cannot be known; else bytes into the memory, up
   *     to the end of the file, which may be past the memory's end
   * @throws ClosedException if the descriptor is closed
   */
  public long holeEnd(long at) {
    int number = fd.acquire();
    try {
      long data = Libc.lseek(number, offset + at, SEEK_DATA);
      if (data == -Errno.ENXIO) {
        data = Libc.lseek(number, 0, SEEK_END);
      }
      return Math.max(at, data - offset);
    } finally {
      fd.release();
    }
  }

  /**
   * How many pages from one on are in memory, so that loads from them allocate nothing. The page
   * after those is a hole, or was swapped out or not yet read from a disk.
   *
   * @param at bytes into the memory, a multiple of the page
   * @param pages the most to look at
   * @param vector native memory of {@code pages} bytes, overwritten
   * @return 0 to {@code pages}; {@code pages} where the kernel does not say
   */
  public int resident(long at, int pages, MemorySegment vector) {
    long bytes = (long) pages << Pages.SHIFT;
    if (at < 0 || bytes > memory.byteSize() - at || pages > vector.byteSize()) {
      throw new IndexOutOfBoundsException(
          pages + " pages at byte " + at + " of " + memory.byteSize());
    }
    if (Libc.mincore(memory.address() + at, bytes, vector) < 0) {
      return pages;
    }
    int page = 0;
    while (page < pages && (vector.get(JAVA_BYTE, page) & 1) != 0) {
      page++;
    }
    return page;
  }
}
