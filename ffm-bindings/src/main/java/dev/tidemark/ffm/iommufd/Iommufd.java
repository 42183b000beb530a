package dev.tidemark.ffm.iommufd;

import static dev.tidemark.ffm.iommufd.IommufdUapi.*;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;
import static java.lang.foreign.ValueLayout.JAVA_SHORT;

import dev.tidemark.ffm.ClosedException;
import dev.tidemark.ffm.Errno;
import dev.tidemark.ffm.Fd;
import dev.tidemark.ffm.Ioctl;
import dev.tidemark.ffm.LinuxException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.StructLayout;
import java.util.Locale;
import java.util.Optional;
import java.util.concurrent.locks.LockSupport;
import java.util.function.IntFunction;

/**
 * An owner of an open {@code /dev/iommu}. Everything made on it goes with the descriptor, once the
 * VFIO devices bound to it are closed too.
 *
 * <p>Threading: any thread. Cost: one system call a method.
 */
public final class Iommufd implements AutoCloseable {
  private static final String PATH = "/dev/iommu";
  private static final int DESTROY_TRIES = 1000;
  private static final long DESTROY_PAUSE_NANOS = 100_000;

  private final Fd fd;
  private final boolean own;

  private Iommufd(Fd fd, boolean own) {
    this.fd = fd;
    this.own = own;
  }

  /**
   * What a device's IOMMU can do ({@code struct iommu_hw_info}).
   *
   * @param type an {@code IOMMU_HW_INFO_TYPE_} number
   * @param capabilities {@code IOMMU_HW_CAP_} bits; 0 on a kernel that does not tell
   */
  public record HwInfo(int type, long capabilities) {
    /** Whether page tables for the device can track dirty pages. */
    public boolean hasDirtyTracking() {
      return (capabilities & IOMMU_HW_CAP_DIRTY_TRACKING) != 0;
    }
  }

  /**
   * Whether this process can use IOMMUFD.
   *
   * @return why not; empty if it can
   */
  public static Optional<String> missing() {
    try {
      open().close();
      return Optional.empty();
    } catch (LinuxException e) {
      return Optional.of(e.getMessage());
    }
  }

  /**
   * Opens {@code /dev/iommu}.
   *
   * @throws LinuxException {@code ENOENT} on a kernel without IOMMUFD (Linux 6.2)
   */
  public static Iommufd open() {
    try {
      return new Iommufd(Fd.open(PATH, Fd.O_RDWR), true);
    } catch (LinuxException e) {
      throw e.errno() == Errno.ENOENT
          ? new LinuxException("open(" + PATH + ")", e.errno(), "needs CONFIG_IOMMUFD (Linux 6.2)")
          : e;
    }
  }

  /**
   * Uses an iommufd that is already open; {@link #close()} leaves it open.
   *
   * @param number its descriptor
   */
  public static Iommufd borrow(int number) {
    return new Iommufd(Fd.borrow(number, "iommufd"), false);
  }

  /** The descriptor, for calls that are not bound here. */
  public Fd fd() {
    return fd;
  }

  /**
   * Whether the kernel has {@code IOMMU_IOAS_MAP_FILE} (Linux 6.13), asked with an argument that is
   * too small for it.
   */
  public boolean hasMapFile() {
    return has(IOMMU_IOAS_MAP_FILE);
  }

  /**
   * Whether the kernel can track dirty pages at all (Linux 6.7), asked in the same way. Whether a
   * device's IOMMU can is another question: {@link #allocHwpt}.
   */
  public boolean hasDirtyTracking() {
    return has(IOMMU_HWPT_GET_DIRTY_BITMAP);
  }

  private boolean has(Ioctl.Request request) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment argument = arena.allocate(JAVA_INT);
      argument.set(JAVA_INT, 0, (int) JAVA_INT.byteSize());
      return Ioctl.tryCall(fd, request, argument) != -Errno.ENOTTY;
    }
  }

  /**
   * Makes an empty address space ({@code IOMMU_IOAS_ALLOC}).
   *
   * @throws LinuxException if the kernel refuses
   */
  public Ioas allocIoas() {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment argument = argument(arena, IOMMU_IOAS_ALLOC_LAYOUT);
      Ioctl.call(fd, IOMMU_IOAS_ALLOC, argument);
      int id = argument.get(JAVA_INT, offset(IOMMU_IOAS_ALLOC_LAYOUT, "out_ioas_id"));
      return new Ioas(this, id, true);
    }
  }

  /**
   * Uses an address space that is already there; closing it leaves it there.
   *
   * @param id its id on this iommufd
   */
  public Ioas borrowIoas(int id) {
    return new Ioas(this, id, false);
  }

  /**
   * Makes a page table of a device's kind that holds all mappings of an address space, present and
   * future ({@code IOMMU_HWPT_ALLOC}). No device is attached to it yet.
   *
   * @param deviceId a device's id on this iommufd, from its bind
   * @param ioas the address space
   * @param flags {@code IOMMU_HWPT_ALLOC_} bits
   * @throws LinuxException {@code EOPNOTSUPP} if the device's IOMMU cannot do what {@code flags}
   *     ask; {@code ENOENT} if there is no such device; {@code EADDRINUSE} if a mapping is outside
   *     what the IOMMU can address; {@code EFAULT} or {@code ENOMEM} if mapped memory cannot be
   *     pinned
   */
  public Hwpt allocHwpt(int deviceId, Ioas ioas, int flags) {
    StructLayout layout = IOMMU_HWPT_ALLOC_LAYOUT;
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment argument = argument(arena, layout);
      argument.set(JAVA_INT, offset(layout, "flags"), flags);
      argument.set(JAVA_INT, offset(layout, "dev_id"), deviceId);
      ioas.lend(
          ioasId -> {
            argument.set(JAVA_INT, offset(layout, "pt_id"), ioasId);
            return call(
                IOMMU_HWPT_ALLOC,
                argument,
                String.format(Locale.ROOT, "device %d, IOAS %d, flags %d", deviceId, ioasId, flags),
                Iommufd::allocAdvice);
          });
      int id = argument.get(JAVA_INT, offset(layout, "out_hwpt_id"));
      return new Hwpt(this, id, true);
    }
  }

  private static String allocAdvice(int errno) {
    return switch (errno) {
      case Errno.EOPNOTSUPP -> ": the device's IOMMU cannot do this";
      case Errno.ENOENT -> ": no such device, or a mediated one, which has no page table";
      case Errno.ENOTTY -> ": needs Linux 6.6, with dirty tracking 6.7";
      default -> "";
    };
  }

  /**
   * Uses a page table that is already there; closing it leaves it there.
   *
   * @param id its id on this iommufd
   */
  public Hwpt borrowHwpt(int id) {
    return new Hwpt(this, id, false);
  }

  /**
   * What a device's IOMMU can do ({@code IOMMU_GET_HW_INFO}).
   *
   * @param deviceId a device's id on this iommufd, from its bind
   * @throws LinuxException {@code ENOENT} if there is no such device, or it has no IOMMU (mediated
   *     devices)
   */
  public HwInfo getHwInfo(int deviceId) {
    StructLayout layout = IOMMU_HW_INFO_LAYOUT;
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment argument = argument(arena, layout);
      argument.set(JAVA_INT, offset(layout, "dev_id"), deviceId);
      call(IOMMU_GET_HW_INFO, argument, "device " + deviceId);
      return new HwInfo(
          argument.get(JAVA_INT, offset(layout, "out_data_type")),
          argument.get(JAVA_LONG, offset(layout, "out_capabilities")));
    }
  }

  /**
   * How pinned memory is charged ({@code IOMMU_OPTION_RLIMIT_MODE}): 0 to the user, 1 to the
   * process.
   */
  public long getRlimitMode() {
    return option(IOMMU_OPTION_RLIMIT_MODE, IOMMU_OPTION_OP_GET, 0, 0);
  }

  /**
   * Sets how pinned memory is charged; before anything else is made here.
   *
   * @param mode 0 to the user, 1 to the process
   * @throws LinuxException {@code EPERM} without {@code CAP_SYS_RESOURCE}; {@code EBUSY} once there
   *     is an object
   */
  public void setRlimitMode(long mode) {
    option(IOMMU_OPTION_RLIMIT_MODE, IOMMU_OPTION_OP_SET, 0, mode);
  }

  long option(int option, int operation, int object, long value) {
    StructLayout layout = IOMMU_OPTION_LAYOUT;
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment argument = argument(arena, layout);
      argument.set(JAVA_INT, offset(layout, "option_id"), option);
      argument.set(JAVA_SHORT, offset(layout, "op"), (short) operation);
      argument.set(JAVA_INT, offset(layout, "object_id"), object);
      argument.set(JAVA_LONG, offset(layout, "val64"), value);
      call(
          IOMMU_OPTION,
          argument,
          String.format(
              Locale.ROOT,
              "option %d, operation %d, object %d, value %d",
              option,
              operation,
              object,
              value));
      return argument.get(JAVA_LONG, offset(layout, "val64"));
    }
  }

  /**
   * The address space that this descriptor offers as a VFIO container ({@code IOMMU_VFIO_IOAS}).
   *
   * @return borrowed; or empty if there is none
   */
  public Optional<Ioas> getVfioIoas() {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment argument = argument(arena, IOMMU_VFIO_IOAS_LAYOUT);
      argument.set(JAVA_SHORT, offset(IOMMU_VFIO_IOAS_LAYOUT, "op"), (short) IOMMU_VFIO_IOAS_GET);
      int result = Ioctl.tryCall(fd, IOMMU_VFIO_IOAS, argument);
      if (result == -Errno.ENODEV) {
        return Optional.empty();
      }
      if (result < 0) {
        throw Ioctl.failure(fd, IOMMU_VFIO_IOAS, -result, "get");
      }
      int id = argument.get(JAVA_INT, offset(IOMMU_VFIO_IOAS_LAYOUT, "ioas_id"));
      return Optional.of(borrowIoas(id));
    }
  }

  /**
   * Offers an address space to the container calls of VFIO on this descriptor.
   *
   * @throws LinuxException if the kernel refuses
   */
  public void setVfioIoas(Ioas ioas) {
    ioas.lend(id -> vfioIoas(id, IOMMU_VFIO_IOAS_SET));
  }

  /**
   * Offers none any more.
   *
   * @throws LinuxException if the kernel refuses
   */
  public void clearVfioIoas() {
    vfioIoas(0, IOMMU_VFIO_IOAS_CLEAR);
  }

  private int vfioIoas(int id, int operation) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment argument = argument(arena, IOMMU_VFIO_IOAS_LAYOUT);
      argument.set(JAVA_INT, offset(IOMMU_VFIO_IOAS_LAYOUT, "ioas_id"), id);
      argument.set(JAVA_SHORT, offset(IOMMU_VFIO_IOAS_LAYOUT, "op"), (short) operation);
      return call(IOMMU_VFIO_IOAS, argument, "operation " + operation + ", IOAS " + id);
    }
  }

  void destroy(int id, String kind) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment argument = argument(arena, IOMMU_DESTROY_LAYOUT);
      argument.set(JAVA_INT, offset(IOMMU_DESTROY_LAYOUT, "id"), id);
      // A call in flight on the object, by whatever thread, makes the kernel say EBUSY for a
      // moment.
      int tries = DESTROY_TRIES;
      int result;
      while ((result = Ioctl.tryCall(fd, IOMMU_DESTROY, argument)) == -Errno.EBUSY && --tries > 0) {
        LockSupport.parkNanos(DESTROY_PAUSE_NANOS);
      }
      if (result < 0) {
        throw Ioctl.failure(
            fd,
            IOMMU_DESTROY,
            -result,
            kind
                + " "
                + id
                + (result == -Errno.EBUSY
                    ? " is still in use: detach its devices, destroy what was made from it"
                    : ""));
      }
    } catch (ClosedException e) {
      // The kernel destroys everything with its own descriptor; with somebody else's it did not.
      if (!own) {
        throw e;
      }
    }
  }

  private int call(Ioctl.Request request, MemorySegment argument, String detail) {
    return call(request, argument, detail, errno -> "");
  }

  private int call(
      Ioctl.Request request, MemorySegment argument, String detail, IntFunction<String> advice) {
    int result;
    do {
      result = Ioctl.tryCall(fd, request, argument);
    } while (result == -Errno.EINTR);
    if (result < 0) {
      throw Ioctl.failure(fd, request, -result, detail + advice.apply(-result));
    }
    return result;
  }

  static MemorySegment argument(Arena arena, StructLayout layout) {
    MemorySegment argument = arena.allocate(layout);
    argument.set(JAVA_INT, 0, (int) layout.byteSize());
    return argument;
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
