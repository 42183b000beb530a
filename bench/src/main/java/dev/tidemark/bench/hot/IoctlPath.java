package dev.tidemark.bench.hot;

import dev.tidemark.ffm.Fd;
import dev.tidemark.ffm.Ioctl;
import dev.tidemark.ffm.LinuxException;
import java.lang.foreign.MemorySegment;

/**
 * A call of the kernel that does nothing else: {@code KVM_GET_API_VERSION} of {@code linux/kvm.h};
 * without {@code /dev/kvm} the same number on {@code /dev/null}, which refuses it.
 */
public final class IoctlPath implements AutoCloseable {
  /** Calls in one measurement. */
  public static final int CALLS = 1000;

  private static final Ioctl.Request KVM_GET_API_VERSION =
      Ioctl._IO("KVM_GET_API_VERSION", 0xae, 0x00);

  private final Fd fd;
  private final String device;

  /** Opens the device. */
  public IoctlPath() {
    String path = "/dev/kvm";
    Fd opened;
    try {
      opened = Fd.open(path, Fd.O_RDWR);
    } catch (LinuxException e) {
      path = "/dev/null";
      opened = Fd.open(path, Fd.O_RDWR);
    }
    fd = opened;
    device = path;
  }

  /** Which device is asked. */
  public String device() {
    return device;
  }

  /** One call, with a number. */
  public int call() {
    return Ioctl.tryCall(fd, KVM_GET_API_VERSION, 0L);
  }

  /** One call, with memory, at which the kernel does not look. */
  public int callWithMemory() {
    return Ioctl.tryCall(fd, KVM_GET_API_VERSION, MemorySegment.NULL);
  }

  /** {@link #CALLS} calls, all with the same answer. */
  public long tidemark() {
    long last = 0;
    for (int i = 0; i < CALLS; i++) {
      last = call();
    }
    // The C library says -1 for every failure.
    return Math.max(-1, last);
  }

  /** The same in C. */
  public long rival() {
    int number = fd.acquire();
    try {
      return Rivals.ioctlCalls(number, Integer.toUnsignedLong(KVM_GET_API_VERSION.code()), CALLS);
    } finally {
      fd.release();
    }
  }

  @Override
  public void close() {
    fd.close();
  }
}
