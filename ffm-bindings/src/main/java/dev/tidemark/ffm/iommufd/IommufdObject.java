package dev.tidemark.ffm.iommufd;

import dev.tidemark.ffm.ClosedException;
import dev.tidemark.ffm.LinuxException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.function.IntUnaryOperator;

/**
 * An object of an {@link Iommufd} that is known by its id. The kernel gives the id of a destroyed
 * object to the next one, so calls and {@link #close()} exclude each other, and a call after close
 * throws {@link ClosedException} instead of reaching a stranger.
 *
 * <p>Threading: any thread; calls on one object run one after the other.
 */
public abstract sealed class IommufdObject implements AutoCloseable permits Ioas, Hwpt {
  private static final long LARGEST_ARGUMENT = 48;

  final Iommufd iommufd;

  /** The argument of the call that holds this object's monitor. */
  final MemorySegment argument = Arena.ofAuto().allocate(LARGEST_ARGUMENT, 8);

  private final int id;
  private final boolean own;
  private boolean closed;
  private boolean destroyed;

  IommufdObject(Iommufd iommufd, int id, boolean own) {
    if (id <= 0) {
      throw new IllegalArgumentException("not an IOMMUFD id: " + id);
    }
    this.iommufd = iommufd;
    this.id = id;
    this.own = own;
  }

  abstract String kind();

  /**
   * The kernel's id, for calls that are not bound here. It may name another object as soon as this
   * one is closed; {@link #lend} excludes that.
   *
   * @throws ClosedException after close
   */
  public final synchronized int id() {
    return open();
  }

  /**
   * Makes a call with the id, before which and during which this object is not closed.
   *
   * @param call takes the id
   * @return what the call returned
   * @throws ClosedException after close
   */
  public final synchronized int lend(IntUnaryOperator call) {
    return call.applyAsInt(open());
  }

  /** The id, for a caller that holds the monitor. */
  final int open() {
    if (closed) {
      throw new ClosedException(toString());
    }
    return id;
  }

  /**
   * Ends the use of this object for good, after a call in flight, and destroys it unless it is
   * borrowed.
   *
   * @throws LinuxException {@code EBUSY} if devices or other objects still use it; closing again
   *     then tries again
   */
  @Override
  public final synchronized void close() {
    closed = true;
    if (own && !destroyed) {
      iommufd.destroy(id, kind());
      destroyed = true;
    }
  }

  @Override
  public final String toString() {
    return kind() + " " + id + " of " + iommufd;
  }
}
