package dev.tidemark.ffm;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_SHORT;

import dev.tidemark.ffm.internal.Libc;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.ref.Reference;
import java.net.Inet4Address;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.UnknownHostException;
import java.nio.ByteOrder;

/**
 * A TCP socket over IPv4, blocking, straight on the C library: gathering and scattering calls of up
 * to {@link IoVectors#MAX} pieces of memory allocate nothing, where {@code SocketChannel} allocates
 * per call.
 *
 * <p>Threading: one reading and one writing thread; {@link #shutdown()} from any thread wakes both.
 * The JVM ignores {@code SIGPIPE}, so writing to a closed connection fails with {@code EPIPE}.
 */
public final class Socket implements AutoCloseable {
  private static final int AF_INET = 2;
  private static final int SOCK_STREAM = 1;
  private static final int SOCK_CLOEXEC = 0x80000;
  private static final int SOL_SOCKET = 1;
  private static final int SO_REUSEADDR = 2;
  private static final int IPPROTO_TCP = 6;
  private static final int TCP_NODELAY = 1;
  private static final int TCP_CONGESTION = 13;
  private static final int SHUT_WR = 1;
  private static final int SHUT_RDWR = 2;
  private static final int SOCKADDR_IN_BYTES = 16;
  private static final short POLLIN = 1;

  private final Fd fd;
  private final MemorySegment poll = Arena.ofAuto().allocate(8, 4);

  private Socket(Fd fd) {
    this.fd = fd;
  }

  /**
   * Uses a connected stream socket that is already there; {@link #close()} leaves it open.
   *
   * @param number its descriptor, in blocking mode
   */
  public static Socket borrow(int number) {
    return new Socket(Fd.borrow(number, "socket"));
  }

  /**
   * Listens for connections.
   *
   * @param address an IPv4 address and a port; port 0 takes a free one, see {@link #localAddress()}
   * @throws LinuxException {@code EADDRINUSE} if the port is taken
   */
  public static Socket listen(InetSocketAddress address) {
    Socket socket = create("listening socket");
    try (Arena arena = Arena.ofConfined()) {
      socket.option(arena, SOL_SOCKET, SO_REUSEADDR);
      MemorySegment name = sockaddr(arena, address);
      int number = socket.fd.acquire();
      try {
        Libc.check(Libc.bind(number, name, SOCKADDR_IN_BYTES), "bind(" + text(address) + ")");
        Libc.check(Libc.listen(number, 16), "listen(" + text(address) + ")");
      } finally {
        socket.fd.release();
      }
      return socket;
    } catch (RuntimeException e) {
      socket.close();
      throw e;
    }
  }

  /**
   * Connects. Where both ends have the same address, and so are one host, what this end sends is
   * not paced: its congestion control is Reno, whatever the host's default. Between hosts the
   * default stays.
   *
   * @param address an IPv4 address and a port
   * @throws LinuxException {@code ECONNREFUSED} if nobody listens there
   */
  public static Socket connect(InetSocketAddress address) {
    Socket socket = create("connection to " + text(address));
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment name = sockaddr(arena, address);
      int number = socket.fd.acquire();
      try {
        Libc.check(Libc.connect(number, name, SOCKADDR_IN_BYTES), "connect(" + text(address) + ")");
      } finally {
        socket.fd.release();
      }
      socket.option(arena, IPPROTO_TCP, TCP_NODELAY);
      if (socket.localAddress().getAddress().equals(address.getAddress())) {
        socket.withoutPacing(arena);
      }
      return socket;
    } catch (RuntimeException e) {
      socket.close();
      throw e;
    }
  }

  /**
   * Takes a congestion control that only counts. A host's default may pace (BBR does): a timer for
   * each packet, which inside one host costs more than the packet.
   */
  private void withoutPacing(Arena arena) {
    int number = fd.acquire();
    try {
      // Every kernel has this one, and no list of allowed ones leaves it out.
      MemorySegment name = arena.allocateFrom("reno");
      Libc.check(
          Libc.setsockopt(number, IPPROTO_TCP, TCP_CONGESTION, name, (int) name.byteSize()),
          "setsockopt(TCP_CONGESTION, reno)");
    } finally {
      fd.release();
    }
  }

  private static Socket create(String label) {
    long number = Libc.check(Libc.socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket(TCP)");
    return new Socket(Fd.own((int) number, label));
  }

  private void option(Arena arena, int level, int option) {
    int number = fd.acquire();
    try {
      Libc.check(
          Libc.setsockopt(number, level, option, arena.allocateFrom(JAVA_INT, 1), 4),
          "setsockopt(" + level + ", " + option + ")");
    } finally {
      fd.release();
    }
  }

  private static String text(InetSocketAddress address) {
    return address.getHostString() + ":" + address.getPort();
  }

  private static MemorySegment sockaddr(Arena arena, InetSocketAddress address) {
    if (!(address.getAddress() instanceof Inet4Address ip)) {
      throw new IllegalArgumentException(text(address) + " is not an IPv4 address");
    }
    MemorySegment name = arena.allocate(SOCKADDR_IN_BYTES, 4);
    name.set(JAVA_SHORT, 0, (short) AF_INET);
    name.set(JAVA_SHORT.withOrder(ByteOrder.BIG_ENDIAN), 2, (short) address.getPort());
    MemorySegment.copy(ip.getAddress(), 0, name, JAVA_BYTE, 4, 4);
    return name;
  }

  /** The descriptor, closed with this owner if it is its own. */
  Fd fd() {
    return fd;
  }

  /** The address that this socket is bound to. */
  public InetSocketAddress localAddress() {
    int number = fd.acquire();
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment name = arena.allocate(SOCKADDR_IN_BYTES, 4);
      MemorySegment length = arena.allocateFrom(JAVA_INT, SOCKADDR_IN_BYTES);
      Libc.check(Libc.getsockname(number, name, length), "getsockname");
      int port = Short.toUnsignedInt(name.get(JAVA_SHORT.withOrder(ByteOrder.BIG_ENDIAN), 2));
      byte[] ip = new byte[4];
      MemorySegment.copy(name, JAVA_BYTE, 4, ip, 0, 4);
      return new InetSocketAddress(InetAddress.getByAddress(ip), port);
    } catch (UnknownHostException e) {
      throw new AssertionError("four bytes are an IPv4 address", e);
    } finally {
      fd.release();
    }
  }

  /**
   * Waits for a connection.
   *
   * @throws LinuxException if this is no listening socket, or {@link #shutdown()} was called
   */
  public Socket accept() {
    int number = fd.acquire();
    try (Arena arena = Arena.ofConfined()) {
      int result;
      do {
        result = Libc.accept4(number, SOCK_CLOEXEC);
      } while (result == -Errno.EINTR);
      Socket socket =
          new Socket(Fd.own((int) Libc.check(result, "accept4"), "accepted connection"));
      socket.option(arena, IPPROTO_TCP, TCP_NODELAY);
      return socket;
    } finally {
      fd.release();
    }
  }

  /**
   * Writes until all of the vectors went out.
   *
   * @param vectors what to write; empty of bytes afterwards
   * @return how many calls it took
   * @throws LinuxException {@code EPIPE} or {@code ECONNRESET} if the other side is gone
   */
  public int writeFully(IoVectors vectors) {
    int number = fd.acquire();
    try {
      int calls = 0;
      while (vectors.remaining() > 0) {
        long moved = Libc.writev(number, vectors.pending(), vectors.pendingCount());
        calls++;
        if (moved >= 0) {
          vectors.advance(moved);
        } else if (moved != -Errno.EINTR) {
          throw new LinuxException("writev on " + fd, (int) -moved, "is the other side gone?");
        }
      }
      return calls;
    } finally {
      Reference.reachabilityFence(vectors);
      fd.release();
    }
  }

  /**
   * Reads what is there, waiting for at least a byte.
   *
   * @param address where to put it: native memory of at least {@code bytes} bytes
   * @param bytes the most to read, more than 0
   * @return how many bytes, 0 at the end of the stream
   * @throws LinuxException {@code ECONNRESET} if the other side is gone
   */
  public long read(MemorySegment address, long bytes) {
    if (bytes <= 0 || bytes > address.byteSize()) {
      throw new IndexOutOfBoundsException(bytes + " bytes into " + address.byteSize());
    }
    int number = fd.acquire();
    try {
      long result;
      do {
        result = Libc.read(number, address, bytes);
      } while (result == -Errno.EINTR);
      if (result < 0) {
        throw new LinuxException("read on " + fd, (int) -result, "is the other side gone?");
      }
      return result;
    } finally {
      fd.release();
    }
  }

  /**
   * Reads once into several pieces of memory, waiting for at least a byte.
   *
   * @param vectors where to put it, not empty of bytes; what was filled is taken off
   * @return how many bytes, 0 at the end of the stream
   * @throws LinuxException {@code ECONNRESET} if the other side is gone
   */
  public long read(IoVectors vectors) {
    if (vectors.remaining() == 0) {
      // The kernel would answer 0, which is how it says that the stream has ended.
      throw new IllegalArgumentException("no memory to read into");
    }
    int number = fd.acquire();
    try {
      long result;
      do {
        result = Libc.readv(number, vectors.pending(), vectors.pendingCount());
      } while (result == -Errno.EINTR);
      if (result < 0) {
        throw new LinuxException("readv on " + fd, (int) -result, "is the other side gone?");
      }
      vectors.advance(result);
      return result;
    } finally {
      Reference.reachabilityFence(vectors);
      fd.release();
    }
  }

  /**
   * Waits until there is something to read or accept, or the stream has ended.
   *
   * @param timeoutMillis milliseconds, 0 to look only
   * @return false if the time is up
   */
  public boolean awaitReadable(int timeoutMillis) {
    if (timeoutMillis < 0) {
      throw new IllegalArgumentException("timeout of " + timeoutMillis + " ms");
    }
    long deadline = System.nanoTime() + timeoutMillis * 1_000_000L;
    int number = fd.acquire();
    try {
      poll.set(JAVA_INT, 0, number);
      poll.set(JAVA_SHORT, 4, POLLIN);
      while (true) {
        long left = Math.max(0, (deadline - System.nanoTime() + 999_999) / 1_000_000);
        int result = Libc.poll(poll, 1, (int) left);
        if (result != -Errno.EINTR) {
          return Libc.check(result, "poll") > 0;
        }
      }
    } finally {
      fd.release();
    }
  }

  /** Says that no more will be written; reading goes on. */
  public void shutdownOutput() {
    shutdown(SHUT_WR);
  }

  /** Ends both directions at once: whoever reads, writes or accepts in another thread returns. */
  public void shutdown() {
    shutdown(SHUT_RDWR);
  }

  private void shutdown(int how) {
    int number = fd.acquire();
    try {
      // ENOTCONN only says that the other side was faster.
      Libc.shutdown(number, how);
    } finally {
      fd.release();
    }
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
