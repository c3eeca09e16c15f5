/*
 * socket.h - Unix stream sockets that never block, between processes of one user on one machine. What travels is
 * frames: four bytes of length, lowest first, then that many bytes.
 *
 * Both directions are bounded: a frame that announces more than `most` bytes ends the connection, and so does whoever
 * does not read while more than `most` bytes wait for him. A socket is used by one thread.
 */
#ifndef SAG_SOCKET_H
#define SAG_SOCKET_H

#include "engine/sagan.h"

typedef struct sag_socket sag_socket;

/*
 * Listens at a path, which may be of any length. The file has mode 0600 from the beginning and replaces a socket that
 * is there: only who holds some lock may call this. Anything else of that name is SAG_ERR_IO.
 */
sag_status sag_socket_listen(const char *path, size_t most, sag_socket **out);
/* *out is NULL when nobody waits. Processes of another user are turned away in silence. */
sag_status sag_socket_accept(sag_socket *listener, sag_socket **out);
/* SAG_ERR_STATE: a socket is there, but no process listens. SAG_ERR_IO: anything else. */
sag_status sag_socket_connect(const char *path, size_t most, sag_socket **out);

/* Sends a frame, or keeps what does not fit yet; sag_socket_wait sends that. SAG_ERR_STATE: it would be more than
 * `most` bytes that wait; nothing of the frame was taken. SAG_ERR_IO: the other side is gone. */
sag_status sag_socket_send(sag_socket *s, const void *bytes, size_t size);
size_t sag_socket_unsent(const sag_socket *s); /* bytes that wait for the other side */

/* The next frame, in the socket's memory until the next call; *bytes is NULL if none is complete yet. SAG_ERR_IO: the
 * other side is gone, and all that it sent was received. SAG_ERR_FORMAT: a frame of more than `most` bytes. */
sag_status sag_socket_receive(sag_socket *s, const uint8_t **bytes, size_t *size);

/* Waits until something can be received or accepted, up to so many seconds (0: only looks; below 0: without end), or
 * until a signal comes. Sends what waits meanwhile. *ready: how many sockets have something. */
#define SAG_SOCKET_WAIT_MAX 64
sag_status sag_socket_wait(sag_socket *const *sockets, int count, double seconds, int *ready);

void sag_socket_close(sag_socket *s); /* NULL is allowed; a listener's file goes away, if it is still its own */

#endif
