package dev.tidemark.ffm;

/**
 * An owner was used after its {@code close()}. The number that it held may already name another
 * kernel object, so nothing was asked of the kernel.
 */
public class ClosedException extends IllegalStateException {
  private static final long serialVersionUID = 1L;

  /**
   * @param what the owner that is closed
   */
  public ClosedException(String what) {
    super(what + " is closed");
  }
}
