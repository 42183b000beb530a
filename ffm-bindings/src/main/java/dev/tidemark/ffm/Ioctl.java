package dev.tidemark.ffm;

import dev.tidemark.ffm.internal.Libc;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.MemorySegment;
import java.util.Locale;

/**
 * {@code ioctl(2)} and its request numbers ({@code asm-generic/ioctl.h}). A number's size field
 * comes from the layout of the argument, so that a wrong layout shows as a wrong number.
 *
 * <p>Memory-unsafe: a wrong address, length or lifetime here corrupts memory or ends the JVM.
 * Checked is what a request's number tells: the size of its argument and whether the kernel writes
 * it. It does not tell of arrays that follow a structure, of pointers in it, nor of anything where
 * it has no size ({@code _IO}).
 *
 * <p>Threading: platform threads; a call may block in the kernel and pins a virtual thread's
 * carrier. Cost: one system call ({@link NativeAccess}).
 */
public final class Ioctl {
  private static final int NONE = 0;
  private static final int WRITE = 1;
  private static final int READ = 2;
  private static final int DIRECTION_SHIFT = 30;
  private static final int SIZE_SHIFT = 16;
  private static final int SIZE_MAX = (1 << 14) - 1;

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
    if (size > SIZE_MAX) {
      throw new IllegalArgumentException(name + ": argument of " + size + " bytes");
    }
    return new Request(
        name, direction << DIRECTION_SHIFT | (int) size << SIZE_SHIFT | type << 8 | number);
  }

  /**
   * Issues a request once.
   *
   * @param argument native memory, alive until the call returns
   * @return what the kernel returned, 0 or more; or {@code -errno}
   * @throws IllegalArgumentException if the argument is smaller than the request's number says, or
   *     read-only where the kernel writes
   * @throws ClosedException if the descriptor's handle is closed
   */
  public static int tryCall(Fd fd, Request request, MemorySegment argument) {
    check(request, argument);
    int number = fd.acquire();
    try {
      return Libc.ioctl(number, Integer.toUnsignedLong(request.code), argument);
    } finally {
      fd.release();
    }
  }

  private static void check(Request request, MemorySegment argument) {
    int bytes = request.code >>> SIZE_SHIFT & SIZE_MAX;
    boolean written = request.code >>> DIRECTION_SHIFT >= READ;
    if (!argument.isNative() || argument.byteSize() < bytes || written && argument.isReadOnly()) {
      throw new IllegalArgumentException(
          String.format(
              Locale.ROOT,
              "%s needs %d bytes of %s native memory, not %s",
              request.name,
              bytes,
              written ? "writable" : "readable",
              argument));
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
