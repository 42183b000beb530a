package dev.tidemark.engine.stream;

/**
 * The other side sent what it must not, or stopped sending. The message is one line: what is wrong,
 * at which byte of the stream (counted from 0), what was expected and what was found.
 */
public class StreamException extends RuntimeException {
  private static final long serialVersionUID = 1L;

  /**
   * @param message one line
   */
  public StreamException(String message) {
    super(message);
  }

  /**
   * @param message one line
   * @param cause the failed call
   */
  public StreamException(String message, Throwable cause) {
    super(message, cause);
  }
}
