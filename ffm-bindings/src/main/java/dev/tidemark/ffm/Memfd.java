package dev.tidemark.ffm;

import dev.tidemark.ffm.internal.Libc;

/**
 * Memory with a descriptor, from {@code memfd_create(2)}. Its length is sealed: whoever else gets
 * the descriptor cannot shrink it, which would end every process that touches the memory.
 */
public final class Memfd implements AutoCloseable {
  private static final int MFD_CLOEXEC = 1;
  private static final int MFD_ALLOW_SEALING = 2;
  private static final int MFD_NOEXEC_SEAL = 8;
  private static final int F_ADD_SEALS = 1033;
  private static final int F_SEAL_SEAL = 1;
  private static final int F_SEAL_SHRINK = 2;
  private static final int F_SEAL_GROW = 4;

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
    int flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
    int number = Libc.memfdCreate(name, flags | MFD_NOEXEC_SEAL);
    if (number == -Errno.EINVAL) {
      // Linux before 6.3; later ones can be set to insist on it.
      number = Libc.memfdCreate(name, flags);
    }
    Libc.check(number, "memfd_create(" + name + ")");
    Fd fd = Fd.own(number, "memfd " + name);
    try {
      Libc.check(Libc.ftruncate(number, bytes), "ftruncate(memfd " + name + ", " + bytes + ")");
      Libc.check(
          Libc.fcntl(number, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL),
          "fcntl(memfd " + name + ", F_ADD_SEALS)");
      return new Memfd(fd, bytes);
    } catch (RuntimeException e) {
      fd.close();
      throw e;
    }
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
