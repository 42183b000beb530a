package dev.tidemark.ffm;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_SHORT;
import static java.lang.foreign.ValueLayout.JAVA_SHORT_UNALIGNED;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.net.Inet6Address;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.UnknownHostException;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;

/** {@code struct sockaddr} of the three families that {@link Socket} speaks. */
final class Sockaddr {
  static final int AF_UNIX = 1;
  static final int AF_INET = 2;
  static final int AF_INET6 = 10;

  /** {@code sizeof(struct sockaddr_un)}, the largest of the three. */
  static final int MAX_BYTES = 110;

  private static final int UNIX_PATH_BYTES = 108;
  private static final int INET_BYTES = 16;
  private static final int INET6_BYTES = 28;

  private Sockaddr() {}

  /** The family of an address, refused if its host was not resolved. */
  static int family(InetSocketAddress address) {
    if (address.isUnresolved()) {
      throw new IllegalArgumentException(
          "the host name '" + address.getHostString() + "' cannot be resolved");
    }
    return address.getAddress() instanceof Inet6Address ? AF_INET6 : AF_INET;
  }

  /** {@code sockaddr_in} or {@code sockaddr_in6}; the segment's length is the address's. */
  static MemorySegment of(Arena arena, InetSocketAddress address) {
    int family = family(address);
    byte[] ip = address.getAddress().getAddress();
    MemorySegment name = arena.allocate(family == AF_INET6 ? INET6_BYTES : INET_BYTES, 4);
    name.set(JAVA_SHORT, 0, (short) family);
    name.set(JAVA_SHORT.withOrder(ByteOrder.BIG_ENDIAN), 2, (short) address.getPort());
    MemorySegment.copy(ip, 0, name, JAVA_BYTE, family == AF_INET6 ? 8 : 4, ip.length);
    if (address.getAddress() instanceof Inet6Address six) {
      name.set(JAVA_INT, 24, six.getScopeId());
    }
    return name;
  }

  /** {@code sockaddr_un}; the segment's length is the address's. */
  static MemorySegment of(Arena arena, Path path) {
    byte[] bytes = path.toString().getBytes(StandardCharsets.UTF_8);
    if (bytes.length == 0 || bytes.length >= UNIX_PATH_BYTES) {
      throw new IllegalArgumentException(
          "the path of a Unix socket has 1 to "
              + (UNIX_PATH_BYTES - 1)
              + " bytes; "
              + path
              + " has "
              + bytes.length);
    }
    // The path ends with a zero byte, which belongs to the address.
    MemorySegment name = arena.allocate(2 + bytes.length + 1, 2);
    name.set(JAVA_SHORT, 0, (short) AF_UNIX);
    MemorySegment.copy(bytes, 0, name, JAVA_BYTE, 2, bytes.length);
    return name;
  }

  static int family(MemorySegment name) {
    return name.get(JAVA_SHORT_UNALIGNED, 0);
  }

  /**
   * The address that the kernel wrote.
   *
   * @return null if it is no IP address
   */
  static InetSocketAddress inet(MemorySegment name) {
    int family = family(name);
    if (family != AF_INET && family != AF_INET6) {
      return null;
    }
    int port =
        Short.toUnsignedInt(name.get(JAVA_SHORT_UNALIGNED.withOrder(ByteOrder.BIG_ENDIAN), 2));
    byte[] ip = new byte[family == AF_INET6 ? 16 : 4];
    MemorySegment.copy(name, JAVA_BYTE, family == AF_INET6 ? 8 : 4, ip, 0, ip.length);
    try {
      int scope = family == AF_INET6 ? name.get(JAVA_INT, 24) : 0;
      InetAddress host =
          scope == 0 ? InetAddress.getByAddress(ip) : Inet6Address.getByAddress(null, ip, scope);
      return new InetSocketAddress(host, port);
    } catch (UnknownHostException e) {
      throw new AssertionError("4 and 16 bytes are an address", e);
    }
  }

  /** The address for messages, without asking a name server. */
  static String text(InetSocketAddress address) {
    String host = address.getHostString();
    return (host.contains(":") ? "[" + host + "]" : host) + ":" + address.getPort();
  }
}
