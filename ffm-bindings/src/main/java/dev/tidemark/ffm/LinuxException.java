package dev.tidemark.ffm;

/**
 * A system call that failed. The message names the call, the arguments that matter, the error and
 * what to do about it; {@link #errno()} is for code.
 */
public class LinuxException extends RuntimeException {
  private static final long serialVersionUID = 1L;

  private final int errno;

  /**
   * @param call the call and the arguments that matter, such as {@code open(/dev/kvm)}
   * @param errno the error number, positive
   */
  public LinuxException(String call, int errno) {
    this(call, errno, null);
  }

  /**
   * @param call the call and the arguments that matter
   * @param errno the error number, positive
   * @param advice what the reader can do about it, or null
   */
  public LinuxException(String call, int errno, String advice) {
    super(
        call
            + ": "
            + Errno.name(errno)
            + " ("
            + errno
            + ")"
            + (advice == null ? "" : ": " + advice));
    this.errno = errno;
  }

  /** The error number, positive; see {@link Errno}. */
  public int errno() {
    return errno;
  }
}
