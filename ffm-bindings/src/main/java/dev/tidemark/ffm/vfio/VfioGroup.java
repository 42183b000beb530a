package dev.tidemark.ffm.vfio;

import static dev.tidemark.ffm.vfio.VfioUapi.*;
import static java.lang.foreign.ValueLayout.JAVA_INT;

import dev.tidemark.ffm.Errno;
import dev.tidemark.ffm.Fd;
import dev.tidemark.ffm.Ioctl;
import dev.tidemark.ffm.LinuxException;
import dev.tidemark.ffm.internal.Libc;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;

/**
 * An owner of a VFIO group: the devices that an IOMMU cannot tell apart.
 *
 * <p>Threading: any thread. Cost: one system call a method.
 */
public final class VfioGroup implements AutoCloseable {
  private final Fd fd;

  private VfioGroup(Fd fd) {
    this.fd = fd;
  }

  /**
   * Opens a group.
   *
   * @param path such as {@code /dev/vfio/12}
   * @throws LinuxException {@code EBUSY} if somebody else has it, or one of its devices by
   *     character device; {@code EPERM} for a group without IOMMU and without {@code CAP_SYS_RAWIO}
   */
  public static VfioGroup open(String path) {
    return new VfioGroup(Fd.open(path, Fd.O_RDWR));
  }

  /**
   * Uses a group that is already open; {@link #close()} leaves it open.
   *
   * @param number its descriptor
   */
  public static VfioGroup borrow(int number) {
    return new VfioGroup(Fd.borrow(number, "VFIO group"));
  }

  /**
   * The group's state ({@code VFIO_GROUP_GET_STATUS}).
   *
   * @return {@code VFIO_GROUP_FLAGS_} bits
   */
  public int status() {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment argument = arena.allocate(VFIO_GROUP_STATUS_LAYOUT);
      argument.set(JAVA_INT, 0, (int) argument.byteSize());
      Ioctl.call(fd, VFIO_GROUP_GET_STATUS, argument);
      return argument.get(JAVA_INT, offset(VFIO_GROUP_STATUS_LAYOUT, "flags"));
    }
  }

  /**
   * Puts the group into a container ({@code VFIO_GROUP_SET_CONTAINER}).
   *
   * @throws LinuxException {@code EINVAL} if it is in one; {@code EPERM} if it is not viable
   */
  public void setContainer(VfioContainer container) {
    int number = container.fd().acquire();
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment argument = arena.allocateFrom(JAVA_INT, number);
      int result;
      do {
        result = Ioctl.tryCall(fd, VFIO_GROUP_SET_CONTAINER, argument);
      } while (result == -Errno.EINTR);
      if (result < 0) {
        throw Ioctl.failure(
            fd,
            VFIO_GROUP_SET_CONTAINER,
            -result,
            "into "
                + container
                + switch (-result) {
                  case Errno.EINVAL -> ": take it out of its container first";
                  case Errno.EPERM -> ": a device of the group has a driver other than VFIO's";
                  default -> "";
                });
      }
    } finally {
      container.fd().release();
    }
  }

  /**
   * Takes the group out of its container ({@code VFIO_GROUP_UNSET_CONTAINER}).
   *
   * @throws LinuxException {@code EBUSY} if one of its devices is open
   */
  public void unsetContainer() {
    int result = Ioctl.tryCall(fd, VFIO_GROUP_UNSET_CONTAINER, 0);
    if (result < 0) {
      throw Ioctl.failure(
          fd,
          VFIO_GROUP_UNSET_CONTAINER,
          -result,
          result == -Errno.EBUSY ? "close its devices first" : null);
    }
  }

  /**
   * Opens a device of the group, which must be in a container that has its IOMMU set ({@code
   * VFIO_GROUP_GET_DEVICE_FD}).
   *
   * @param name such as {@code 0000:00:02.0}, or a mediated device's UUID
   * @throws LinuxException {@code ENODEV} if the group has no such device; {@code EINVAL} without a
   *     container or an IOMMU
   */
  public VfioDevice openDevice(String name) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment argument = Libc.string(arena, name);
      int number;
      do {
        number = Ioctl.tryCall(fd, VFIO_GROUP_GET_DEVICE_FD, argument);
      } while (number == -Errno.EINTR);
      if (number < 0) {
        throw Ioctl.failure(fd, VFIO_GROUP_GET_DEVICE_FD, -number, name + openAdvice(-number));
      }
      return VfioDevice.own(Fd.own(number, "VFIO device " + name));
    }
  }

  private static String openAdvice(int errno) {
    return switch (errno) {
      case Errno.ENODEV -> ": the group has no such device";
      case Errno.EINVAL -> ": put the group into a container and set its IOMMU first";
      default -> "";
    };
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
