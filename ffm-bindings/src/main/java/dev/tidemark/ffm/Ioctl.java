package dev.tidemark.ffm;

import dev.tidemark.ffm.internal.Libc;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.MemorySegment;

/**
 * {@code ioctl(2)} and its request numbers ({@code asm-generic/ioctl.h}). A number's size field
 * comes from the layout of the argument, so that a wrong layout shows as a wrong number.
 *
 * <p>Threading: platform threads; a call may block in the kernel and pins a virtual thread's
 * carrier. Cost: one system call, no allocation unless it fails.
 */
public final class Ioctl {
  private static final int NONE = 0;
  private static final int WRITE = 1;
  private static final int READ = 2;

  /**
   * A request number with the kernel's name for it.
   *
   * @param name the kernel's name
   * @param code the number, as {@code ioctl(2)} takes it
   */
  public record Request(String name, int code) {}

  private Ioctl() {}

  /** {@code _IO}: no argument, or one whose size is not in the number. */
  public static Request _IO(String name, int type, int number) {
    return request(name, NONE, type, number, 0);
  }

  /** {@code _IOR}: the kernel writes the argument. */
  public static Request _IOR(String name, int type, int number, MemoryLayout argument) {
    return request(name, READ, type, number, argument.byteSize());
  }

  /** {@code _IOW}: the kernel reads the argument. */
  public static Request _IOW(String name, int type, int number, MemoryLayout argument) {
    return request(name, WRITE, type, number, argument.byteSize());
  }

  /** {@code _IOWR}: the kernel reads and writes the argument. */
  public static Request _IOWR(String name, int type, int number, MemoryLayout argument) {
    return request(name, READ | WRITE, type, number, argument.byteSize());
  }

  private static Request request(String name, int direction, int type, int number, long size) {
    if (size >= 1 << 14) {
      throw new IllegalArgumentException(name + ": argument of " + size + " bytes");
    }
    return new Request(name, direction << 30 | (int) size << 16 | type << 8 | number);
  }

  /**
   * Issues a request once.
   *
   * @param argument native memory, alive until the call returns
   * @return what the kernel returned, 0 or more; or {@code -errno}
   * @throws ClosedException if the descriptor's handle is closed
   */
  public static int tryCall(Fd fd, Request request, MemorySegment argument) {
    int number = fd.acquire();
    try {
      return Libc.ioctl(number, Integer.toUnsignedLong(request.code), argument);
    } finally {
      fd.release();
    }
  }

  /** As {@link #tryCall(Fd, Request, MemorySegment)}, with a number for an argument. */
  public static int tryCall(Fd fd, Request request, long argument) {
    int number = fd.acquire();
    try {
      return Libc.ioctl(number, Integer.toUnsignedLong(request.code), argument);
    } finally {
      fd.release();
    }
  }

  /**
   * Issues a request, and again after a signal ({@code EINTR}).
   *
   * @param argument native memory, alive until the call returns
   * @return what the kernel returned, 0 or more
   * @throws LinuxException if the kernel refuses
   * @throws ClosedException if the descriptor's handle is closed
   */
  public static int call(Fd fd, Request request, MemorySegment argument) {
    int result;
    do {
      result = tryCall(fd, request, argument);
    } while (result == -Errno.EINTR);
    return checked(fd, request, result);
  }

  /** As {@link #call(Fd, Request, MemorySegment)}, with a number for an argument. */
  public static int call(Fd fd, Request request, long argument) {
    int result;
    do {
      result = tryCall(fd, request, argument);
    } while (result == -Errno.EINTR);
    return checked(fd, request, result);
  }

  private static int checked(Fd fd, Request request, int result) {
    if (result < 0) {
      throw failure(fd, request, -result, null);
    }
    return result;
  }

  /**
   * The exception for a failed request.
   *
   * @param errno the error number, positive
   * @param detail the arguments that matter and what to do, or null
   */
  public static LinuxException failure(Fd fd, Request request, int errno, String detail) {
    return new LinuxException("ioctl(" + request.name + ") on " + fd, errno, detail);
  }
}
