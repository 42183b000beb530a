package dev.tidemark.engine.stream;

import static java.lang.foreign.ValueLayout.JAVA_INT_UNALIGNED;
import static java.lang.foreign.ValueLayout.JAVA_LONG_UNALIGNED;
import static java.lang.foreign.ValueLayout.JAVA_SHORT_UNALIGNED;

import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;

/**
 * The numbers of QEMU's migration stream, version 3 (QEMU {@code migration/savevm.h}, {@code
 * migration/savevm.c}, {@code migration/ram.c}, {@code migration/migration.c}).
 */
final class StreamFormat {
  static final ValueLayout.OfShort BE16 = JAVA_SHORT_UNALIGNED.withOrder(ByteOrder.BIG_ENDIAN);
  static final ValueLayout.OfInt BE32 = JAVA_INT_UNALIGNED.withOrder(ByteOrder.BIG_ENDIAN);
  static final ValueLayout.OfLong BE64 = JAVA_LONG_UNALIGNED.withOrder(ByteOrder.BIG_ENDIAN);

  /** "QEVM". */
  static final int MAGIC = 0x5145564d;

  static final int VERSION = 3;

  static final int EOF = 0x00;
  static final int SECTION_START = 0x01;
  static final int SECTION_PART = 0x02;
  static final int SECTION_END = 0x03;
  static final int SECTION_FULL = 0x04;
  static final int SUBSECTION = 0x05;
  static final int VMDESCRIPTION = 0x06;
  static final int CONFIGURATION = 0x07;
  static final int COMMAND = 0x08;
  static final int SECTION_FOOTER = 0x7e;

  static final String RAM = "ram";
  static final int RAM_INSTANCE = 0;
  static final int RAM_VERSION = 4;

  static final int FLAG_ZERO = 0x02;
  static final int FLAG_MEM_SIZE = 0x04;
  static final int FLAG_PAGE = 0x08;
  static final int FLAG_EOS = 0x10;
  static final int FLAG_CONTINUE = 0x20;

  static final int CMD_OPEN_RETURN_PATH = 1;
  static final int CMD_PING = 2;
  static final int CMD_SWITCHOVER_START = 11;

  static final int RP_SHUT = 1;
  static final int RP_PONG = 2;

  /** The longest of any name: its length goes into one byte. */
  static final int MAX_NAME = 255;

  /** The longest text that {@link #printable} returns, in UTF-16 units. */
  static final int MAX_TEXT = 1000;

  private StreamFormat() {}

  static void checkName(String name) {
    int bytes = name.getBytes(StandardCharsets.UTF_8).length;
    if (bytes < 1 || bytes > MAX_NAME) {
      throw new IllegalArgumentException("section name of " + bytes + " bytes, not 1 to 255");
    }
  }

  /**
   * Checks a machine's name, which may be empty.
   *
   * @return its bytes
   */
  static byte[] machine(String name) {
    byte[] bytes = name.getBytes(StandardCharsets.UTF_8);
    if (bytes.length > MAX_NAME) {
      throw new IllegalArgumentException(
          "machine name of " + bytes.length + " bytes, not 0 to " + MAX_NAME);
    }
    return bytes;
  }

  /**
   * One line that a terminal shows as it is, of a text that may hold the other side's: control
   * characters, line and paragraph ends and what changes the direction of writing become question
   * marks.
   *
   * @return at most {@value #MAX_TEXT} units
   */
  static String printable(String text) {
    String shown = text.replaceAll("[\\p{C}\\p{Zl}\\p{Zp}]", "?");
    if (shown.length() <= MAX_TEXT) {
      return shown;
    }
    int end = MAX_TEXT - 3;
    return shown.substring(0, Character.isHighSurrogate(shown.charAt(end - 1)) ? end - 1 : end)
        + "...";
  }

  /**
   * Why one of the commands that QEMU has, up to its version 11.1, is refused.
   *
   * @return its number, its name and the reason, or null if QEMU has no such command
   */
  static String refusedCommand(int command) {
    String postcopy = "postcopy is not supported here; turn off postcopy-ram at the source";
    return switch (command) {
      case 3 -> "command 3 (POSTCOPY_ADVISE): " + postcopy;
      case 4 -> "command 4 (POSTCOPY_LISTEN): " + postcopy;
      case 5 -> "command 5 (POSTCOPY_RUN): " + postcopy;
      case 6 -> "command 6 (POSTCOPY_RAM_DISCARD): " + postcopy;
      case 7 -> "command 7 (PACKAGED): " + postcopy;
      case 8 ->
          "command 8 (ENABLE_COLO): COLO is not supported here; turn off x-colo at the source";
      case 9 -> "command 9 (POSTCOPY_RESUME): " + postcopy;
      case 10 -> "command 10 (RECV_BITMAP): " + postcopy;
      default -> null;
    };
  }

  /**
   * Why a record of the {@code ram} section is refused that has one of the flags which QEMU has, up
   * to its version 11.1, and which are not used here.
   *
   * @return the flag's name, its value and the reason, or null if no such flag is among them
   */
  static String refusedFlag(int flags) {
    if ((flags & 0x200) != 0) {
      return "MULTIFD_FLUSH (0x200): multifd is not supported here; turn it off at the source";
    }
    if ((flags & 0x100) != 0) {
      return "COMPRESS_PAGE (0x100): compressed pages are not supported here; turn off compress at"
          + " the source";
    }
    if ((flags & 0x80) != 0) {
      return "HOOK (0x80): RDMA is not supported here";
    }
    if ((flags & 0x40) != 0) {
      return "XBZRLE (0x40): deltas are not supported here; turn off xbzrle at the source";
    }
    return null;
  }

  /** Why a subsection of the configuration is refused. */
  static String refusedSubsection(String name) {
    return switch (name) {
      case "configuration/capabilities" ->
          "the source has a capability that both ends must have and that is not supported here;"
              + " turn off x-ignore-shared and mapped-ram there";
      case "configuration/uuid" -> "turn off validate-uuid at the source";
      case "configuration/target-page-bits" -> "the source's pages are not of 4096 bytes";
      default -> "it is not known here";
    };
  }

  /** The name of a message of the return path, as QEMU has them up to its version 11.1. */
  static String message(int type) {
    return switch (type) {
      case RP_SHUT -> "SHUT";
      case RP_PONG -> "PONG";
      case 3 -> "REQ_PAGES_ID (type 3, of postcopy)";
      case 4 -> "REQ_PAGES (type 4, of postcopy)";
      case 5 -> "RECV_BITMAP (type 5, of postcopy)";
      case 6 -> "RESUME_ACK (type 6, of postcopy)";
      case 7 -> "SWITCHOVER_ACK (type 7; turn off switchover-ack at the destination)";
      default -> "message of type " + type;
    };
  }

  static String hex(long value) {
    return "0x" + Long.toHexString(value);
  }

  static String hex(int value) {
    return "0x" + Integer.toHexString(value);
  }
}
