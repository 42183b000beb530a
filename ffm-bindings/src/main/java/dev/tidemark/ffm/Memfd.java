package dev.tidemark.ffm;

import dev.tidemark.ffm.internal.Libc;

/** Memory with a descriptor, from {@code memfd_create(2)}. */
public final class Memfd implements AutoCloseable {
  private static final int MFD_CLOEXEC = 1;

  private final Fd fd;
  private final long bytes;

  private Memfd(Fd fd, long bytes) {
    this.fd = fd;
    this.bytes = bytes;
  }

  /**
   * Creates one, all zero.
   *
   * @param name for {@code /proc}, no need to be unique
   * @param bytes its length, more than 0
   * @throws LinuxException if the kernel refuses
   */
  public static Memfd create(String name, long bytes) {
    if (bytes <= 0) {
      throw new IllegalArgumentException("a memfd of " + bytes + " bytes");
    }
    int number =
        (int) Libc.check(Libc.memfdCreate(name, MFD_CLOEXEC), "memfd_create(" + name + ")");
    Fd fd = Fd.own(number, "memfd " + name);
    int result = Libc.ftruncate(number, bytes);
    if (result < 0) {
      fd.close();
      throw new LinuxException("ftruncate(memfd " + name + ", " + bytes + ")", -result);
    }
    return new Memfd(fd, bytes);
  }

  /** The descriptor, closed with this owner. */
  public Fd fd() {
    return fd;
  }

  /** Its length in bytes. */
  public long bytes() {
    return bytes;
  }

  /** Maps all of it, shared. */
  public Mapping map() {
    return Mapping.shared(fd, 0, bytes);
  }

  /** Closes the descriptor; mappings of it stay. */
  @Override
  public void close() {
    fd.close();
  }
}
