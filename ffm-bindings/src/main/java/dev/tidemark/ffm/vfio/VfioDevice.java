package dev.tidemark.ffm.vfio;

import static dev.tidemark.ffm.vfio.VfioUapi.*;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import dev.tidemark.ffm.Errno;
import dev.tidemark.ffm.Fd;
import dev.tidemark.ffm.Ioctl;
import dev.tidemark.ffm.LinuxException;
import dev.tidemark.ffm.internal.NativeMemory;
import dev.tidemark.ffm.iommufd.Iommufd;
import dev.tidemark.ffm.iommufd.IommufdObject;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.StructLayout;
import java.lang.ref.Reference;
import java.util.List;
import java.util.Locale;
import java.util.Optional;

/**
 * A VFIO device. One opened by its character device must be bound to an {@link Iommufd} before
 * anything else; one from a {@link VfioGroup} is usable at once.
 *
 * <p>Threading: any thread; reports of one owner run one after the other. Cost: one system call a
 * method; {@link #dmaLoggingReport} allocates nothing of its own.
 */
public final class VfioDevice implements AutoCloseable {
  private static final long HEADER = VFIO_DEVICE_FEATURE_LAYOUT.byteSize();
  private static final int ARGSZ = 0;
  private static final int FLAGS = 4;

  private static final long REPORT$iova = report("iova");
  private static final long REPORT$length = report("length");
  private static final long REPORT$page_size = report("page_size");
  private static final long REPORT$bitmap = report("bitmap");
  private static final long REPORT_BYTES =
      HEADER + VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT_LAYOUT.byteSize();

  /** Reports must start at this, the smallest page that the kernel takes, or a larger power. */
  private static final long SMALLEST_PAGE = 4096;

  private final Fd fd;

  /** The argument of a report, guarded by itself. */
  private final MemorySegment report = Arena.ofAuto().allocate(REPORT_BYTES, 8);

  private VfioDevice(Fd fd) {
    this.fd = fd;
  }

  private static long report(String member) {
    return HEADER + offset(VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT_LAYOUT, member);
  }

  /**
   * What a device is.
   *
   * @param flags {@code VFIO_DEVICE_FLAGS_} bits
   * @param regions how many regions
   * @param irqs how many interrupts
   */
  public record Info(int flags, int regions, int irqs) {}

  /**
   * Opens a device's character device.
   *
   * @param path such as {@code /dev/vfio/devices/vfio0}
   * @throws LinuxException {@code ENOENT} on a kernel without (Linux 6.6); {@code EBUSY} if the
   *     device's group is in use
   */
  public static VfioDevice open(String path) {
    return own(Fd.open(path, Fd.O_RDWR));
  }

  static VfioDevice own(Fd fd) {
    return new VfioDevice(fd);
  }

  /**
   * Uses a device that is open already, and bound if it is a character device; {@link #close()}
   * leaves it open.
   *
   * @param number its descriptor
   */
  public static VfioDevice borrow(int number) {
    return new VfioDevice(Fd.borrow(number, "VFIO device"));
  }

  /** The descriptor, for calls that are not bound here. */
  public Fd fd() {
    return fd;
  }

  /**
   * Binds a character device to an iommufd ({@code VFIO_DEVICE_BIND_IOMMUFD}). Only closing ends
   * that.
   *
   * @return the device's id there; that of a mediated device is of no use for page tables
   * @throws LinuxException {@code EINVAL} if it is bound, also by another process, or came from a
   *     group; {@code EBUSY} if its group is in use; {@code EPERM} if its interrupts cannot be
   *     isolated
   */
  public int bindIommufd(Iommufd iommufd) {
    StructLayout layout = VFIO_DEVICE_BIND_IOMMUFD_LAYOUT;
    int number = iommufd.fd().acquire();
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment argument = argument(arena, layout);
      argument.set(JAVA_INT, offset(layout, "iommufd"), number);
      int result = tryCall(VFIO_DEVICE_BIND_IOMMUFD, argument);
      if (result < 0) {
        throw Ioctl.failure(
            fd, VFIO_DEVICE_BIND_IOMMUFD, -result, "to " + iommufd + bindAdvice(-result));
      }
      return argument.get(JAVA_INT, offset(layout, "out_devid"));
    } finally {
      iommufd.fd().release();
    }
  }

  private static String bindAdvice(int errno) {
    return switch (errno) {
      case Errno.EINVAL -> ": it is bound already, also by another process, or came from a group";
      case Errno.EBUSY -> ": close its group first";
      default -> "";
    };
  }

  /**
   * Attaches the device to an address space or a page table, or moves it from where it was ({@code
   * VFIO_DEVICE_ATTACH_IOMMUFD_PT}). An address space makes a page table by itself, without dirty
   * tracking.
   *
   * @param target of the iommufd that the device is bound to; a mediated device takes an address
   *     space only
   * @return the id of the page table that is used; of the address space for a mediated device
   * @throws LinuxException {@code EINVAL} if the device cannot use the page table, such as one that
   *     tracks where the device's IOMMU cannot; {@code EADDRINUSE} if something is mapped where the
   *     device cannot have it. The device then stays where it was
   */
  public int attach(IommufdObject target) {
    StructLayout layout = VFIO_DEVICE_ATTACH_IOMMUFD_PT_LAYOUT;
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment argument = argument(arena, layout);
      target.lend(
          id -> {
            argument.set(JAVA_INT, offset(layout, "pt_id"), id);
            int result = tryCall(VFIO_DEVICE_ATTACH_IOMMUFD_PT, argument);
            if (result < 0) {
              throw Ioctl.failure(
                  fd,
                  VFIO_DEVICE_ATTACH_IOMMUFD_PT,
                  -result,
                  "to id "
                      + id
                      + (result == -Errno.EADDRINUSE
                          ? ": map whole pages, and nothing where the device has reserved addresses"
                          : ""));
            }
            return result;
          });
      return argument.get(JAVA_INT, offset(layout, "pt_id"));
    }
  }

  /**
   * Takes the device from where it is attached ({@code VFIO_DEVICE_DETACH_IOMMUFD_PT}).
   *
   * @throws LinuxException if the kernel refuses
   */
  public void detach() {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment argument = argument(arena, VFIO_DEVICE_DETACH_IOMMUFD_PT_LAYOUT);
      call(VFIO_DEVICE_DETACH_IOMMUFD_PT, argument, null);
    }
  }

  /**
   * What the device is ({@code VFIO_DEVICE_GET_INFO}).
   *
   * @throws LinuxException {@code EINVAL} if a character device is not bound
   */
  public Info info() {
    StructLayout layout = VFIO_DEVICE_INFO_LAYOUT;
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment argument = argument(arena, layout);
      call(VFIO_DEVICE_GET_INFO, argument, null);
      return new Info(
          argument.get(JAVA_INT, offset(layout, "flags")),
          argument.get(JAVA_INT, offset(layout, "num_regions")),
          argument.get(JAVA_INT, offset(layout, "num_irqs")));
    }
  }

  /**
   * Resets the device ({@code VFIO_DEVICE_RESET}), the only way out of the state ERROR. A reset is
   * a write to guest memory for all that tracks it.
   *
   * @throws LinuxException if the device has no reset or it failed
   */
  public void reset() {
    int result = Ioctl.tryCall(fd, VFIO_DEVICE_RESET, 0);
    if (result < 0) {
      throw Ioctl.failure(fd, VFIO_DEVICE_RESET, -result, null);
    }
  }

  /**
   * Whether the device has a feature.
   *
   * @param feature a {@code VFIO_DEVICE_FEATURE_} number, with {@code VFIO_DEVICE_FEATURE_GET} or
   *     {@code VFIO_DEVICE_FEATURE_SET} if it must have these
   * @throws LinuxException for any answer but yes and no
   */
  public boolean probeFeature(int feature) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment argument = arena.allocate(HEADER, 8);
      argument.set(JAVA_INT, ARGSZ, (int) HEADER);
      argument.set(JAVA_INT, FLAGS, feature | VFIO_DEVICE_FEATURE_PROBE);
      int result = Ioctl.tryCall(fd, VFIO_DEVICE_FEATURE, argument);
      if (result == -Errno.ENOTTY || result == -Errno.EINVAL) {
        return false;
      }
      if (result < 0) {
        throw Ioctl.failure(fd, VFIO_DEVICE_FEATURE, -result, "probe of feature " + feature);
      }
      return true;
    }
  }

  /**
   * How the device can migrate ({@code VFIO_DEVICE_FEATURE_MIGRATION}).
   *
   * @return {@code VFIO_MIGRATION_} bits; 0 if it cannot
   * @throws LinuxException {@code EINVAL} if a character device is not bound
   */
  public long migrationFlags() {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment argument =
          feature(
              arena,
              VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIGRATION,
              VFIO_DEVICE_FEATURE_MIGRATION_LAYOUT);
      int result = Ioctl.tryCall(fd, VFIO_DEVICE_FEATURE, argument);
      if (result == -Errno.ENOTTY) {
        return 0;
      }
      if (result < 0) {
        throw Ioctl.failure(fd, VFIO_DEVICE_FEATURE, -result, "get MIGRATION");
      }
      return argument.get(JAVA_LONG, HEADER);
    }
  }

  /**
   * The device's migration state ({@code VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE}).
   *
   * @return a {@code VFIO_DEVICE_STATE_} number
   * @throws LinuxException {@code ENOTTY} if it cannot migrate
   */
  public int migDeviceState() {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment argument =
          feature(
              arena,
              VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
              VFIO_DEVICE_FEATURE_MIG_STATE_LAYOUT);
      int result = tryCall(VFIO_DEVICE_FEATURE, argument);
      if (result < 0) {
        throw Ioctl.failure(
            fd,
            VFIO_DEVICE_FEATURE,
            -result,
            "get MIG_DEVICE_STATE"
                + (result == -Errno.ENOTTY ? ": the device cannot migrate" : ""));
      }
      return argument.get(JAVA_INT, HEADER);
    }
  }

  /**
   * Brings the device into another migration state, by the shortest way.
   *
   * @param state a {@code VFIO_DEVICE_STATE_} number
   * @return the stream that this opened: into PRE_COPY from RUNNING, STOP_COPY from STOP, and
   *     RESUMING; empty otherwise, also into STOP_COPY from PRE_COPY, where the stream goes on
   * @throws LinuxException {@code EINVAL} for a way that there is not, also out of ERROR; the
   *     message says in which state the device is now: the old one, one on the way, ERROR, or even
   *     the wanted one if only its stream could not be handed out
   */
  public Optional<VfioMigrationStream> setMigDeviceState(int state) {
    StructLayout layout = VFIO_DEVICE_FEATURE_MIG_STATE_LAYOUT;
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment argument =
          feature(arena, VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, layout);
      argument.set(JAVA_INT, HEADER + offset(layout, "device_state"), state);
      argument.set(JAVA_INT, HEADER + offset(layout, "data_fd"), -1);
      int result = Ioctl.tryCall(fd, VFIO_DEVICE_FEATURE, argument);
      if (result < 0) {
        throw Ioctl.failure(
            fd, VFIO_DEVICE_FEATURE, -result, "to " + stateName(state) + stateNow(state));
      }
      int data = argument.get(JAVA_INT, HEADER + offset(layout, "data_fd"));
      return data < 0
          ? Optional.empty()
          : Optional.of(
              new VfioMigrationStream(
                  Fd.own(data, fd.label() + "'s state in " + stateName(state))));
    }
  }

  private String stateNow(int wanted) {
    int now;
    try {
      now = migDeviceState();
    } catch (LinuxException e) {
      return "";
    }
    String advice = "";
    if (now == VFIO_DEVICE_STATE_ERROR) {
      advice = ", which only a reset ends";
    } else if (now == wanted) {
      advice = ", but its stream is lost: leave it and come again";
    }
    return ", is in " + stateName(now) + advice;
  }

  /**
   * How much state there would be if the device were stopped now ({@code
   * VFIO_DEVICE_FEATURE_MIG_DATA_SIZE}).
   *
   * @return bytes, an estimate
   * @throws LinuxException {@code ENOTTY} if the device does not tell
   */
  public long migDataSize() {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment argument =
          feature(
              arena,
              VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIG_DATA_SIZE,
              VFIO_DEVICE_FEATURE_MIG_DATA_SIZE_LAYOUT);
      call(VFIO_DEVICE_FEATURE, argument, "get MIG_DATA_SIZE");
      return argument.get(JAVA_LONG, HEADER);
    }
  }

  /**
   * Has the device log its writes ({@code VFIO_DEVICE_FEATURE_DMA_LOGGING_START}).
   *
   * @param pageSize bytes that the log should be kept in, a power of two; a wish
   * @param ranges what to log: at most a 16th of the host's page size of them, multiples of {@code
   *     pageSize}, not overlapping
   * @return bytes that the log is kept in, which may be more than was wished
   * @throws IllegalArgumentException if the page size is no power of two or a range has no length,
   *     which the kernel does not check
   * @throws LinuxException {@code EINVAL} for ranges that overlap or are not aligned; {@code E2BIG}
   *     for too many; {@code EOVERFLOW} for one past the end; what the driver says, also for a
   *     second start
   */
  public long dmaLoggingStart(long pageSize, List<DmaRange> ranges) {
    checkPageSize(pageSize, 1);
    StructLayout layout = VFIO_DEVICE_FEATURE_DMA_LOGGING_CONTROL_LAYOUT;
    long stride = VFIO_DEVICE_FEATURE_DMA_LOGGING_RANGE_LAYOUT.byteSize();
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment array =
          arena.allocate(VFIO_DEVICE_FEATURE_DMA_LOGGING_RANGE_LAYOUT, Math.max(1, ranges.size()));
      for (int i = 0; i < ranges.size(); i++) {
        if (ranges.get(i).length() == 0) {
          throw new IllegalArgumentException("range of no length: " + ranges.get(i));
        }
        array.set(JAVA_LONG, i * stride, ranges.get(i).iova());
        array.set(JAVA_LONG, i * stride + 8, ranges.get(i).length());
      }
      MemorySegment argument =
          feature(arena, VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_START, layout);
      argument.set(JAVA_LONG, HEADER + offset(layout, "page_size"), pageSize);
      argument.set(JAVA_INT, HEADER + offset(layout, "num_ranges"), ranges.size());
      argument.set(JAVA_LONG, HEADER + offset(layout, "ranges"), array.address());
      int result = tryCall(VFIO_DEVICE_FEATURE, argument);
      if (result < 0) {
        throw Ioctl.failure(
            fd,
            VFIO_DEVICE_FEATURE,
            -result,
            String.format(
                Locale.ROOT,
                "DMA_LOGGING_START, pages of %d, %d ranges from %s%s",
                pageSize,
                ranges.size(),
                ranges.isEmpty() ? "none" : ranges.get(0),
                startAdvice(-result)));
      }
      return argument.get(JAVA_LONG, HEADER + offset(layout, "page_size"));
    }
  }

  private static String startAdvice(int errno) {
    return switch (errno) {
      case Errno.ENOTTY -> ": the device cannot log what it writes";
      case Errno.E2BIG -> ": fewer ranges, also if they cover more";
      case Errno.EOVERFLOW -> ": a range must end below 2^64";
      case Errno.EINVAL ->
          ": ranges must be multiples of the page and not overlap, and the log not on already";
      default -> "";
    };
  }

  /**
   * Ends the log ({@code VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP}).
   *
   * @throws LinuxException if the driver refuses
   */
  public void dmaLoggingStop() {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment argument = arena.allocate(HEADER, 8);
      argument.set(JAVA_INT, ARGSZ, (int) HEADER);
      argument.set(JAVA_INT, FLAGS, VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP);
      call(VFIO_DEVICE_FEATURE, argument, "DMA_LOGGING_STOP");
    }
  }

  /**
   * ORs the log of a range into a bitmap, and clears it in the device ({@code
   * VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT}).
   *
   * <p>Memory-unsafe: a wrong address, length or lifetime here corrupts memory or ends the JVM.
   *
   * <p>The range must be inside one of those that were started with, and start and end at multiples
   * of the page size that the start returned: drivers differ in what they make of others. The
   * kernel changes whole 64-bit words without locking, so nobody else may write these words
   * meanwhile; a driver may set bits past the bitmap's end; and when the bitmap cannot be written
   * the bits are gone while the call succeeds.
   *
   * @param iova the first address
   * @param length bytes, more than 0
   * @param pageSize bytes that a bit stands for, a power of two, at least 4096
   * @param bitmap native memory, alive until the call returns, touched in advance; bit n is the
   *     page at {@code iova + n * pageSize}
   * @throws IllegalArgumentException if the length is 0, the page size wrong or the bitmap too
   *     small
   * @throws LinuxException what the driver says. Bits may have been delivered, others may be gone:
   *     all of the range counts as dirty
   */
  public void dmaLoggingReport(long iova, long length, long pageSize, MemorySegment bitmap) {
    dmaLoggingReport(iova, length, pageSize, bitmap, 0);
  }

  /**
   * As {@link #dmaLoggingReport(long, long, long, MemorySegment)}, into the middle of a bitmap.
   *
   * @param offset bytes into the bitmap, where bit 0 goes; any, also one that splits a word
   */
  public void dmaLoggingReport(
      long iova, long length, long pageSize, MemorySegment bitmap, long offset) {
    checkPageSize(pageSize, SMALLEST_PAGE);
    int shift = Long.numberOfTrailingZeros(pageSize);
    long bits = (length >>> shift) + ((length & pageSize - 1) == 0 ? 0 : 1);
    if (length == 0) {
      throw new IllegalArgumentException("a report of no bytes");
    }
    long address = NativeMemory.toWrite(bitmap, offset, bits + 7 >>> 3);
    synchronized (report) {
      report.set(JAVA_INT, ARGSZ, (int) REPORT_BYTES);
      report.set(JAVA_INT, FLAGS, VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT);
      report.set(JAVA_LONG, REPORT$iova, iova);
      report.set(JAVA_LONG, REPORT$length, length);
      report.set(JAVA_LONG, REPORT$page_size, pageSize);
      report.set(JAVA_LONG, REPORT$bitmap, address);
      int result;
      try {
        // After a signal once more: bits that were delivered stay.
        result = tryCall(VFIO_DEVICE_FEATURE, report);
      } finally {
        Reference.reachabilityFence(bitmap);
      }
      if (result < 0) {
        throw Ioctl.failure(
            fd,
            VFIO_DEVICE_FEATURE,
            -result,
            String.format(
                Locale.ROOT,
                "DMA_LOGGING_REPORT, 0x%x bytes at 0x%x, pages of %d, all of which counts as dirty%s",
                length,
                iova,
                pageSize,
                reportAdvice(-result)));
      }
    }
  }

  private static String reportAdvice(int errno) {
    return switch (errno) {
      case Errno.ENOTTY -> ": the device cannot log what it writes";
      case Errno.EOVERFLOW -> ": a range must end below 2^64";
      case Errno.EINVAL -> ": the log is not on, or this not inside one range that it started with";
      default -> "";
    };
  }

  private static void checkPageSize(long pageSize, long smallest) {
    if (pageSize < smallest || Long.bitCount(pageSize) != 1) {
      throw new IllegalArgumentException("a page of " + pageSize + " bytes");
    }
  }

  private static MemorySegment argument(Arena arena, StructLayout layout) {
    MemorySegment argument = arena.allocate(layout);
    argument.set(JAVA_INT, ARGSZ, (int) layout.byteSize());
    return argument;
  }

  private static MemorySegment feature(Arena arena, int flags, StructLayout payload) {
    MemorySegment argument = arena.allocate(HEADER + payload.byteSize(), 8);
    argument.set(JAVA_INT, ARGSZ, (int) argument.byteSize());
    argument.set(JAVA_INT, FLAGS, flags);
    return argument;
  }

  private int tryCall(Ioctl.Request request, MemorySegment argument) {
    int result;
    do {
      result = Ioctl.tryCall(fd, request, argument);
    } while (result == -Errno.EINTR);
    return result;
  }

  private int call(Ioctl.Request request, MemorySegment argument, String detail) {
    int result = tryCall(request, argument);
    if (result < 0) {
      throw Ioctl.failure(fd, request, -result, detail);
    }
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
